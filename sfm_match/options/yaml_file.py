"""YAML that a user wrote: plain values, each key once.

Anchors and aliases are refused: a few lines of them make more values than there is memory for.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfm_match.errors import UsageError, quoted

if TYPE_CHECKING:
    import yaml

LARGEST = 1 << 20  # bytes
DEEPEST = 20  # levels


def read_yaml(path: Path, where: str) -> Any:
    """What a file holds: None where it is empty, else text, numbers, lists and mappings.

    Args:
        path: of the file, in UTF-8, at most 1 MiB.
        where: names it in errors.

    Raises:
        UsageError: it cannot be read, is no YAML, or has an alias, a key that is there twice, or more than 20 levels.
    """
    import yaml

    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise UsageError(f"{where}: larger than {LARGEST:,} bytes")
        return yaml.load(data.decode("utf-8-sig"), Loader=_loader())
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark is not None else ""
        raise UsageError(f"{where}: {line}{quoted(error.problem or error.context or 'not YAML')}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: a date or a number that there cannot be
        raise UsageError(f"{where}: {quoted(' '.join(str(error).split()))}") from error


def _loader() -> "type[yaml.SafeLoader]":
    import yaml
    from yaml.composer import ComposerError
    from yaml.constructor import ConstructorError

    class Loader(yaml.SafeLoader):
        """PyYAML's safe one, with limits."""

        depth = 0

        def compose_node(self, parent: "yaml.Node | None", index: int) -> "yaml.Node | None":
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise ComposerError(None, None, "anchors and aliases are not accepted", event.start_mark)
            if self.depth >= DEEPEST:
                raise ComposerError(None, None, f"more than {DEEPEST} levels", event.start_mark)
            self.depth += 1
            try:
                return super().compose_node(parent, index)
            finally:
                self.depth -= 1

        def construct_mapping(self, node: "yaml.MappingNode", deep: bool = False) -> dict[Any, Any]:
            seen: set[tuple[str, str]] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in seen:
                        raise ConstructorError(None, None, f"'{quoted(key.value)}' is there twice", key.start_mark)
                    seen.add((key.tag, key.value))
            return super().construct_mapping(node, deep)

    return Loader
