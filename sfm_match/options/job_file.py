"""The YAML of `run --config` and `plan --config`."""

from pathlib import Path
from typing import Any

from sfm_match.errors import UsageError, nearest, quoted
from sfm_match.options.base import aliases_of, as_type, converted, fields_of, resolve_aliases
from sfm_match.options.stages import GROUPS
from sfm_match.options.yaml_file import read_yaml

# what the YAML of `run` takes beside the options of stages
OF_RUN: dict[str, Any] = {
    "images": Path,
    "workspace": Path,
    "report": bool,
    "overwrite": bool,
    "json": bool,
    "verbose": bool,
}


def read_job(path: Path) -> dict[str, Any]:
    """The YAML of `run --config`: the options of `run` by their present names. The file may write them with - or _.

    Raises:
        UsageError: the file cannot be read, names an unknown option (with the nearest known one), gives a value of
            another type, or gives two values for one option.
    """
    file = f"--config {quoted(path)}"
    content = read_yaml(path, file)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{file}: expected `option: value` lines")
    known = fields_of("run", GROUPS)
    aliases = aliases_of(known)
    job = {}
    for key, value in content.items():
        name, where = str(key).replace("-", "_"), f"{file}: {quoted(key)}"
        if name in OF_RUN:
            job[name] = as_type(value, OF_RUN[name], where)
        elif (present := aliases.get(name, name)) in known:
            job[name] = converted(value, known[present], where)
        else:
            raise UsageError(f"{file}: unknown option '{quoted(key)}'{nearest(name, [*known, *OF_RUN])}")
    try:
        return resolve_aliases(job, known)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None
