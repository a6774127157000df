"""Documents in, entities out: one output record per input record, in order, whatever happens on the way."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spacy.language import Language
from thinc.api import get_current_ops
from tqdm import tqdm  # type: ignore[import-untyped]

from .executors import Annotate, in_processes, in_ray, in_this_process
from .inputs import Input, find_inputs
from .output import Output, StandardOutput
from .readers import ReadSettings, check, read
from .records import Chunk, Record, chunks
from .worker import Pipeline, Rendered
from .writers import Writer, find_writer

BATCH_SIZE = 1000
# Enough for full batches of the encoder, few enough for memory and for results every few seconds
CHUNK_CHARS = {"cpu": 100_000, "gpu": 500_000}
MAX_ERRORS = 20  # kept for the summary


class RecordError(ValueError):
    """A record that could not be processed, in a strict run."""


@dataclass(frozen=True)
class RunSettings:
    """How to run.

    output_format: a key of `writers.WRITERS`; None to go by the ending of the output.
    batch_size: maximum number of records that go through the pipeline together.
    n_process: number of processes, each with a pipeline of its own.
    strict: stop at the first record that cannot be processed.
    force: overwrite what is there. resume: continue a run that was killed after its last whole record.
    engine: "local", or "ray" for the workers of a Ray cluster.
    num_workers, gpus_per_worker: for the engine "ray".

    Raises ValueError for values outside their range.
    """

    output_format: str | None = None
    batch_size: int = BATCH_SIZE
    n_process: int = 1
    strict: bool = False
    force: bool = False
    resume: bool = False
    engine: str = "local"
    num_workers: int = 2
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        for name in ("batch_size", "n_process", "num_workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')}: {getattr(self, name)} is less than 1")
        if self.engine not in ("local", "ray"):
            raise ValueError(f'--engine: {self.engine!r} is unknown; allowed are "local" and "ray"')
        if self.gpus_per_worker < 0:
            raise ValueError(f"--gpus-per-worker: {self.gpus_per_worker} is less than 0")
        if self.engine == "ray" and self.n_process > 1:
            raise ValueError("--n-process is for one machine; --num-workers says how many workers Ray has")


@dataclass
class Summary:
    """What a run did.

    n_records: records in the output. n_resumed: how many of them an earlier run had written. n_errors: records of this
    run that could not be processed. errors: place and reason of the first of them. n_words: words annotated by this run.
    seconds: time for that, without loading. left_out: files in folders that were skipped for an unknown ending.
    """

    n_records: int = 0
    n_resumed: int = 0
    n_errors: int = 0
    errors: list[str] = field(default_factory=list)
    n_words: int = 0
    seconds: float = 0.0
    left_out: list[str] = field(default_factory=list)


def annotate(
    pipeline: str | Path | Pipeline | Language,
    inputs: Sequence[str | Path],
    output: str | Path,
    settings: RunSettings | None = None,
    reading: ReadSettings | None = None,
    *,
    progress: bool | None = False,
) -> Summary:
    """Annotate files, and write the entities.

    pipeline: folder, package, `Pipeline` or a loaded pipeline (for one process).
    inputs: files, folders, globs; `-` is standard input. output: a file; `-` is standard output.
    settings: how to run. reading: how to read the input.
    progress: whether to show a progress bar on standard error; None: if that is a terminal.

    Raises ConversionError for input that cannot be read, naming file and line; RecordError in a strict run;
    FileExistsError for output that exists already; ValueError; OSError.
    """
    settings, reading = settings or RunSettings(), reading or ReadSettings()
    target = _target(output, find_writer(output, settings.output_format), settings)
    found, left_out = find_inputs(inputs, reading.input_format, target.paths)
    check(found, reading)
    if isinstance(pipeline, (str, Path)):
        pipeline = Pipeline(str(pipeline))
    device = _device(pipeline, settings)
    opened: AbstractContextManager[None]
    if isinstance(target, Output):
        state = _state(pipeline, device, found, target.writer, settings, reading)
        if target.is_complete:
            target.check_complete(state, read(found, reading))
            return Summary(left_out=left_out)
        opened = target.open(state)
    else:
        opened = target.open()
    with _executor(pipeline, target.writer, settings) as annotate_chunks, opened, _bar(found, progress) as bar:
        all_chunks = chunks(read(found, reading), settings.batch_size, CHUNK_CHARS[device])
        summary = Summary(n_records=target.n_done, n_resumed=target.n_done, left_out=left_out)
        start = time.monotonic()
        for chunk, rendered in annotate_chunks(_remaining(all_chunks, target, bar)):
            _write(chunk, rendered, target, summary, settings.strict)
            summary.seconds = time.monotonic() - start
            bar.set_postfix_str(f"{summary.n_words / max(summary.seconds, 1e-9):,.0f} words/s", refresh=False)
            bar.update((chunk.records[-1].at if bar.total else chunk.end) - bar.n)
        target.finish()
    return summary


def _target(output: str | Path, writer: Writer, settings: RunSettings) -> Output | StandardOutput:
    if str(output) != "-":
        return Output(Path(output), writer, force=settings.force, resume=settings.resume)
    if settings.resume:
        raise ValueError("--resume: a run to standard output cannot be resumed; name a file")
    return StandardOutput(writer)


def _executor(pipeline: Pipeline | Language, writer: Writer, settings: RunSettings) -> AbstractContextManager[Annotate]:
    if settings.engine == "local" and settings.n_process == 1:
        return in_this_process(pipeline, writer)
    if isinstance(pipeline, Language):
        raise ValueError("a loaded pipeline runs in one process: name its folder or package for more")
    if settings.engine == "local":
        return in_processes(pipeline, writer, settings.n_process)
    return in_ray(pipeline, writer, settings.num_workers, settings.gpus_per_worker)


def _device(pipeline: Pipeline | Language, settings: RunSettings) -> str:
    if isinstance(pipeline, Pipeline):
        return "gpu" if pipeline.gpu_id >= 0 or settings.gpus_per_worker else "cpu"
    return "gpu" if get_current_ops().device_type == "gpu" else "cpu"


def _bar(inputs: Sequence[Input], progress: bool | None) -> tqdm:
    """A progress bar over the bytes of the input, or over its records if the number of bytes is not known."""
    total = sum(item.size for item in inputs) if all(item.is_file for item in inputs) else None
    disable = None if progress is None else not progress
    return tqdm(total=total, unit="B" if total else " records", unit_scale=True, disable=disable, leave=False)


def _remaining(all_chunks: Iterable[Chunk], target: Output | StandardOutput, bar: tqdm) -> Iterator[Chunk]:
    """The chunks whose records are not all in the output. Raises ValueError if that has records of another input."""
    end = 0
    for chunk in all_chunks:
        end = chunk.end
        if chunk.first < target.n_done <= end:
            _check_last(target, chunk.records[target.n_done - 1 - chunk.first])
        if end > target.n_done:
            yield chunk
        else:
            bar.initial = bar.n = chunk.records[-1].at if bar.total else end  # where estimating the time left starts
    if end < target.n_done:
        raise ValueError(
            f"--resume: the output has {target.n_done} records, the input {end}: it is the output of another input. "
            "--force starts again"
        )


def _check_last(target: Output | StandardOutput, record: Record) -> None:
    """Raise ValueError if the last record in the output is not this one, as far as the format shows it."""
    if target.last is None or not target.writer.grows or not isinstance(record.content, str):
        return
    last = json.loads(target.last)
    if "error" not in last and last.get("text") != record.content:
        raise ValueError(
            f"--resume: the output's record {target.n_done} does not have the text of {record.place}: "
            "it is the output of another input. --force starts again"
        )


def _write(
    chunk: Chunk, rendered: list[Rendered], target: Output | StandardOutput, summary: Summary, strict: bool
) -> None:
    """Write the records of a chunk, and count them. Raises RecordError in a strict run."""
    summary.n_words += sum(item.n_words for item in rendered)
    new: list[bytes] = []
    # Of the first chunk of a resumed run, some records may be in the output already
    n_done = max(0, target.n_done - chunk.first)
    for record, item in zip(chunk.records[n_done:], rendered[n_done:], strict=True):
        if item.error is not None:
            message = f"{record.place}: {item.error}"
            if strict:
                target.write(new)
                raise RecordError(message)
            summary.n_errors += 1
            if len(summary.errors) < MAX_ERRORS:
                summary.errors.append(message)
        new.append(item.data)
    target.write(new)
    summary.n_records += len(new)


def _state(
    pipeline: Pipeline | Language,
    device: str,
    inputs: Sequence[Input],
    writer: Writer,
    settings: RunSettings,
    reading: ReadSettings,
) -> dict[str, Any]:
    """What must be the same for a run to be resumed. The number and kind of workers need not be."""
    if isinstance(pipeline, Language):
        identity = "{lang}_{name} {version}".format(**pipeline.meta)
    else:
        identity = f"{pipeline.name} {pipeline.identity()}"
    return {
        "pipeline": identity,
        "device": device,
        "inputs": [[item.name, item.format, item.size] for item in inputs],
        "format": writer.name,
        "batch_size": settings.batch_size,
        "text_key": reading.text_key,
        "encoding": reading.encoding,
    }
