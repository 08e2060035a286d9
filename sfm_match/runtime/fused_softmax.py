# ruff: noqa: N803, PIE808 - what the compiler knows is in capitals, as Triton's own kernels have it
"""Dual-softmax matching in Triton: the matrix of similarities is computed twice and never written.

With cos the product of two descriptors and t the inverse temperature, S = t (cos - 1), E = exp(S), r and c the row and
column sums of E: P = E^2 / (r c^T) is the product of the softmaxes over rows and over columns, as in
`exports.graphs.MatchBlock`. A cosine is at most 1, so that the maximum that a softmax subtracts is known beforehand: no
running maximum is needed, and one exponential serves both sums.

Pass 1 makes the tiles of S and adds E up along rows, and along columns within each block of rows. Pass 2 makes them
again. Along a row log r is constant, so that the maximum of P is that of 2 S - log c, and along a column that of
2 S - log r: no exponential at all. What blocks of rows find for a column, (blocks, N), is brought together in the order
of the blocks, without atomics: the same input gives the same bits. All logarithms are of base 2, as the hardware's are.

This module needs Triton to be imported; `sfm_match.runtime.match_choice` says whether it is used.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from exports.graphs import LEAST

_LOG2_E = tl.constexpr(1.4426950408889634)
_NONE = tl.constexpr(-3.0e38)  # below every score: |2 S| is less than 10^6, padding included
_FINISH = 256  # columns of a program that brings blocks of rows together
_LEAST_DOT = 16  # the smallest side of a product on tensor cores


_OPTIONS = {"enable_fp_fusion": True}  # said, because Triton 3.9 warns where nobody says it


@dataclass(frozen=True)
class Tile:
    """How the matrix is cut: rows that a program keeps, columns that it goes through at a time."""

    rows: int
    columns: int
    warps: int
    stages: int  # of the pipeline of loads


# of 256 channels these need 217, 144 and 107 KB of shared memory on Hopper and 148, 109 and 72 KB on Ampere and Ada, as
# Triton 3.6 compiles them (3.9: a little less); GPUs have 99 to 227 KiB
HALF_TILES = (Tile(128, 128, 8, 2), Tile(128, 64, 8, 2), Tile(64, 64, 4, 2))
FLOAT_TILE = Tile(32, 32, 8, 1)  # without tensor cores: a larger one only compiles for longer


@triton.jit
def _first_image(block, image, rows, channels, N, COLUMNS: tl.constexpr):
    """(rows, channels) of an image, with the two columns that tell padding in each other's place.

    `MatchBlock` swaps them in the second image; the product is the same, and this one is loaded once.
    """
    swapped = tl.where(channels == COLUMNS - 2, COLUMNS - 1, tl.where(channels == COLUMNS - 1, COLUMNS - 2, channels))
    places = block + image * N * COLUMNS + rows[:, None] * COLUMNS + swapped[None, :]
    return tl.load(places, mask=(rows[:, None] < N) & (channels[None, :] < COLUMNS), other=0.0)


@triton.jit
def _second_image(block, image, rows, channels, N, COLUMNS: tl.constexpr):
    """(rows, channels) of an image, as it lies."""
    places = block + image * N * COLUMNS + rows[:, None] * COLUMNS + channels[None, :]
    return tl.load(places, mask=(rows[:, None] < N) & (channels[None, :] < COLUMNS), other=0.0)


@triton.jit
def _similarities(
    own,
    own_rest,
    block,
    image,
    columns,
    scale,
    N,
    COLUMNS: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
):
    """(rows, columns) float32: S log2(e), of rows that are loaded and columns that are not."""
    other = _second_image(block, image, columns, tl.arange(0, MAIN), N, COLUMNS)
    cosines = tl.dot(own, tl.trans(other), input_precision="ieee")
    if REST:
        rest = _second_image(block, image, columns, MAIN + tl.arange(0, REST), N, COLUMNS)
        cosines = tl.dot(own_rest, tl.trans(rest), cosines, input_precision="ieee")
    return (cosines - 1.0) * scale


@triton.jit
def _sums(
    block,
    pairs,
    temperature,
    row_logs,  # (P, N) float32: log2 r
    column_parts,  # (P, blocks, N) float32: sums of E over the rows of a block
    N,
    LEAST: tl.constexpr,
    COLUMNS: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS_A: tl.constexpr,
    COLUMNS_A: tl.constexpr,
):
    """Pass 1, for a block of rows of a pair."""
    part, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    first, second = tl.load(pairs + 2 * pair), tl.load(pairs + 2 * pair + 1)
    scale = tl.load(temperature) * _LOG2_E
    rows = part * ROWS_A + tl.arange(0, ROWS_A)
    own = _first_image(block, first, rows, tl.arange(0, MAIN), N, COLUMNS)
    own_rest = own
    if REST:
        own_rest = _first_image(block, first, rows, MAIN + tl.arange(0, REST), N, COLUMNS)
    sums = tl.zeros((ROWS_A,), tl.float32)
    parts = column_parts + (pair * tl.num_programs(0) + part) * N
    for start in range(0, N, COLUMNS_A):
        columns = start + tl.arange(0, COLUMNS_A)
        s = _similarities(own, own_rest, block, second, columns, scale, N, COLUMNS, MAIN, REST)
        inside = (rows[:, None] < N) & (columns[None, :] < N)
        e = tl.where(inside, tl.exp2(s), 0.0)
        sums += tl.sum(e, axis=1)
        tl.store(parts + columns, tl.sum(e, axis=0), mask=columns < N)
    tl.store(row_logs + pair * N + rows, tl.log2(tl.maximum(sums, LEAST)), mask=rows < N)


@triton.jit
def _column_logs(column_parts, column_logs, N, blocks, LEAST: tl.constexpr, WIDTH: tl.constexpr):
    """log2 c of a pair, (P, N): the sums of the blocks of rows, added in their order."""
    pair = tl.program_id(1).to(tl.int64)
    columns = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    sums = tl.zeros((WIDTH,), tl.float32)
    for part in range(0, blocks):
        sums += tl.load(column_parts + (pair * blocks + part) * N + columns, mask=columns < N, other=0.0)
    tl.store(column_logs + pair * N + columns, tl.log2(tl.maximum(sums, LEAST)), mask=columns < N)


@triton.jit
def _best(
    block,
    pairs,
    temperature,
    row_logs,
    column_logs,
    places,  # (P, N) int32: the best column of each row, the first of equal ones
    scores,  # (P, N) float32: its P
    part_values,  # (P, blocks, N) float32: the largest 2 S - log2 r of a column within a block of rows
    part_rows,  # (P, blocks, N) int32: the row that has it, the first of equal ones
    N,
    COLUMNS: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS_A: tl.constexpr,
    COLUMNS_A: tl.constexpr,
):
    """Pass 2, for a block of rows of a pair."""
    part, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    first, second = tl.load(pairs + 2 * pair), tl.load(pairs + 2 * pair + 1)
    scale = tl.load(temperature) * _LOG2_E
    rows = part * ROWS_A + tl.arange(0, ROWS_A)
    own = _first_image(block, first, rows, tl.arange(0, MAIN), N, COLUMNS)
    own_rest = own
    if REST:
        own_rest = _first_image(block, first, rows, MAIN + tl.arange(0, REST), N, COLUMNS)
    row_log = tl.load(row_logs + pair * N + rows, mask=rows < N, other=0.0)
    best = tl.full((ROWS_A,), _NONE, tl.float32)
    place = tl.zeros((ROWS_A,), tl.int32)
    parts = (pair * tl.num_programs(0) + part) * N
    for start in range(0, N, COLUMNS_A):
        columns = start + tl.arange(0, COLUMNS_A)
        s = _similarities(own, own_rest, block, second, columns, scale, N, COLUMNS, MAIN, REST)
        column_log = tl.load(column_logs + pair * N + columns, mask=columns < N, other=0.0)
        along_row = tl.where(columns[None, :] < N, 2.0 * s - column_log[None, :], _NONE)
        value, index = tl.max(along_row, axis=1, return_indices=True, return_indices_tie_break_left=True)
        better = value > best  # of equal ones the first stays
        best, place = tl.where(better, value, best), tl.where(better, start + index, place)
        along_column = tl.where(rows[:, None] < N, 2.0 * s - row_log[:, None], _NONE)
        value, index = tl.max(along_column, axis=0, return_indices=True, return_indices_tie_break_left=True)
        tl.store(part_values + parts + columns, value, mask=columns < N)
        tl.store(part_rows + parts + columns, part * ROWS_A + index, mask=columns < N)
    tl.store(places + pair * N + rows, place, mask=rows < N)
    # at most 1, whatever rounding says
    tl.store(scores + pair * N + rows, tl.exp2(tl.minimum(best - row_log, 0.0)), mask=rows < N)


@triton.jit
def _column_places(part_values, part_rows, back, N, blocks, WIDTH: tl.constexpr):
    """The best row of each column, (P, N) int32, the first of equal ones."""
    pair = tl.program_id(1).to(tl.int64)
    columns = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    best = tl.full((WIDTH,), _NONE, tl.float32)
    place = tl.zeros((WIDTH,), tl.int32)
    for part in range(0, blocks):
        parts = (pair * blocks + part) * N + columns
        value = tl.load(part_values + parts, mask=columns < N, other=_NONE)
        row = tl.load(part_rows + parts, mask=columns < N, other=0)
        better = value > best
        best, place = tl.where(better, value, best), tl.where(better, row, place)
    tl.store(back + pair * N + columns, place, mask=columns < N)


@triton.jit
def _keep_mutual(places, back, scores, N, WIDTH: tl.constexpr):
    """Sets the score of a row to 0 where the best row of its best column is another."""
    pair = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    place = tl.load(places + pair * N + rows, mask=rows < N, other=0)
    mutual = tl.load(back + pair * N + place, mask=rows < N, other=-1) == rows
    score = tl.load(scores + pair * N + rows, mask=rows < N, other=0.0)
    tl.store(scores + pair * N + rows, tl.where(mutual, score, 0.0), mask=rows < N)


class FusedMatchBlock(nn.Module):
    """`exports.graphs.MatchBlock` without its matrices. Static shapes, nothing waits: it can be captured as a graph."""

    def __init__(self, tile: Tile | None = None) -> None:
        """
        Args:
            tile: of half-precision descriptors; default: the smallest of `HALF_TILES`, for any GPU since Ampere.
        """
        super().__init__()
        self.tile = tile or HALF_TILES[-1]

    def forward(self, descriptors: Tensor, pairs: Tensor, inverse_temperature: Tensor) -> tuple[Tensor, Tensor]:
        """Mutual maxima of the dual softmax.

        Args:
            descriptors: (I, N, D + 2) float16 or float32, packed as `MatchBlock` takes them. float32 is multiplied in
                full precision, without TF32.
            pairs: (P, 2) int64, places in the block.
            inverse_temperature: (1,) float32.

        Returns:
            (P, N) int32: the keypoint of the second image, (P, N) float32: its probability, 0 where the two are not
            each other's maximum. In a row without a match the first is any place.

        Raises:
            torch.OutOfMemoryError: the device has no memory for the sums of the blocks.
            Exception: whatever Triton's compiler raises; its exceptions share no base of their own.
        """
        places, scores, _ = self.written(descriptors, pairs, inverse_temperature)
        return places, scores

    def written(
        self, descriptors: Tensor, pairs: Tensor, inverse_temperature: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """As `forward`, and by name all that the kernels write."""
        descriptors, pairs = descriptors.contiguous(), pairs.contiguous()
        _, keypoints, columns = descriptors.shape
        count = len(pairs)
        tile = self.tile if descriptors.dtype == torch.float16 else FLOAT_TILE
        blocks = triton.cdiv(keypoints, tile.rows)
        main, rest = channels(columns)

        def new(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=descriptors.device)

        places, scores = new(count, keypoints, dtype=torch.int32), new(count, keypoints)
        if not count or not keypoints:
            return places, scores, {}
        row_logs, column_logs = new(count, keypoints), new(count, keypoints)
        part_values, part_rows = new(count, blocks, keypoints), new(count, blocks, keypoints, dtype=torch.int32)
        back = new(count, keypoints, dtype=torch.int32)
        given = descriptors, pairs, inverse_temperature
        cut: dict[str, Any] = {"COLUMNS": columns, "MAIN": main, "REST": rest}
        cut |= {"ROWS_A": tile.rows, "COLUMNS_A": tile.columns, "num_warps": tile.warps, "num_stages": tile.stages}
        finish: dict[str, Any] = {"WIDTH": _FINISH, **_OPTIONS}
        cut |= _OPTIONS
        each_block, each_row = (blocks, count), (triton.cdiv(keypoints, _FINISH), count)
        with torch.cuda.device_of(descriptors):  # Triton launches on the current one
            _sums[each_block](*given, row_logs, part_values, keypoints, LEAST=LEAST, **cut)
            _column_logs[each_row](part_values, column_logs, keypoints, blocks, LEAST=LEAST, **finish)
            _best[each_block](*given, row_logs, column_logs, places, scores, part_values, part_rows, keypoints, **cut)
            _column_places[each_row](part_values, part_rows, back, keypoints, blocks, **finish)
            _keep_mutual[each_row](places, back, scores, keypoints, **finish)
        everything = {"row_logs": row_logs, "column_logs": column_logs, "part_values": part_values, "back": back}
        return places, scores, everything | {"places": places, "scores": scores}


def channels(columns: int) -> tuple[int, int]:
    """A width as a power of two and a rest, filled up to one: tensor cores take nothing else.

    256 channels and the 8 columns beside them are 256 and 16, not 512.
    """
    main = max(_LEAST_DOT, 1 << (columns.bit_length() - 1))
    rest = columns - main
    return main, max(_LEAST_DOT, triton.next_power_of_2(rest)) if rest > 0 else 0
