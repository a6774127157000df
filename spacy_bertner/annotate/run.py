"""Documents in, entities out: one output record an input record, in order, whatever happens on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spacy.language import Language
from thinc.api import get_current_ops

from .engines import Engine, Processes, Serial
from .formats import Format, find_format
from .output import Output, StandardOutput, check_free, written_files
from .progress import Progress
from .readers import Input, ReadSettings, check, find_inputs, read
from .records import Chunk, Record, chunks
from .worker import Pipeline

BATCH_SIZE = 1000
# Enough for full batches of the encoder, little enough for memory, and for results to come every few seconds
CHUNK_CHARS = {"cpu": 100_000, "gpu": 500_000}
MAX_ERRORS = 20  # those kept for the summary


class RecordError(ValueError):
    """A record that could not be processed, in a strict run."""


@dataclass(frozen=True)
class RunSettings:
    """How to run.

    output_format: a key of `formats.FORMATS`; None: by the ending of the output.
    batch_size: most records that go through the pipeline together.
    n_process: processes, each with a pipeline of its own.
    strict: stop at the first record that cannot be processed.
    force: overwrite what is there. resume: go on after the last whole record of a run that was killed.
    engine: "local", or "ray" for the workers of a Ray cluster.
    num_workers, gpus_per_worker: of the engine "ray".

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
                raise ValueError(f"--{name.replace('_', '-')}: {getattr(self, name)} is not a number from 1")
        if self.engine not in ("local", "ray"):
            raise ValueError(f'--engine: {self.engine!r} is unknown; allowed are "local" and "ray"')
        if self.gpus_per_worker < 0:
            raise ValueError(f"--gpus-per-worker: {self.gpus_per_worker} is not a number from 0")
        if self.engine == "ray" and self.n_process > 1:
            raise ValueError("--n-process is for one machine; --num-workers says how many workers Ray has")


@dataclass
class Summary:
    """What was done.

    n_records: records in the output. n_resumed: those of them that were there before. n_errors: records annotated now
    that could not be processed. errors: the first of them, place and reason. n_words: words annotated now.
    seconds: the time for it, without loading. left_out: files of folders with no known ending.
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
    progress: whether to draw a bar on standard error; None: where that is a terminal.

    Raises ConversionError for input that cannot be read, naming file and line; RecordError in a strict run;
    FileExistsError for output that is there already; ValueError; OSError.
    """
    settings, reading = settings or RunSettings(), reading or ReadSettings()
    form = find_format(output, settings.output_format)
    is_pipe = str(output) == "-"
    path = Path(output)
    if is_pipe and settings.resume:
        raise ValueError("--resume: standard output cannot be gone on with; name a file")
    if not is_pipe:
        check_free(path, form, force=settings.force, resume=settings.resume)
    found, left_out = find_inputs(inputs, reading, () if is_pipe else written_files(path, form))
    check(found, reading)
    if isinstance(pipeline, (str, Path)):
        pipeline = Pipeline(str(pipeline))
    device = _device(pipeline, settings)
    with _engine(pipeline, form, settings) as engine:
        target: Output | StandardOutput
        if is_pipe:
            target = StandardOutput(form)
        else:
            state = _state(pipeline, device, found, form, settings, reading)
            target = Output(path, form, state, force=settings.force, resume=settings.resume)
        try:
            bar = Progress(_total(found), None if progress is None else not progress)
            try:
                summary = _run(engine, target, read(found, reading), settings, CHUNK_CHARS[device], bar)
            finally:
                bar.close()
        finally:
            target.close()
    summary.left_out = left_out
    return summary


def _engine(pipeline: Pipeline | Language, form: Format, settings: RunSettings) -> Engine:
    if settings.engine == "local" and settings.n_process == 1:
        return Serial(pipeline, form)
    if isinstance(pipeline, Language):
        raise ValueError("a loaded pipeline runs in one process: name its folder or package for more")
    if settings.engine == "local":
        return Processes(pipeline, form, settings.n_process)
    from .ray_engine import Ray

    return Ray(pipeline, form, settings.num_workers, settings.gpus_per_worker)


def _device(pipeline: Pipeline | Language, settings: RunSettings) -> str:
    if isinstance(pipeline, Pipeline):
        return "gpu" if pipeline.gpu_id >= 0 or settings.gpus_per_worker else "cpu"
    return "gpu" if get_current_ops().device_type == "gpu" else "cpu"


def _run(
    engine: Engine,
    target: Output | StandardOutput,
    records: Iterable[Record],
    settings: RunSettings,
    max_chars: int,
    bar: Progress,
) -> Summary:
    summary = Summary(n_records=target.n_done, n_resumed=target.n_done)
    start = time.monotonic()
    if target.is_complete:
        target.check_complete(records)
        return summary
    todo = _rest(chunks(records, settings.batch_size, max_chars), target, bar)
    for chunk, rendered in engine.map(todo):
        # Of the first chunk of a run that is gone on with, a part may be there
        n_there = max(0, target.n_done - chunk.first)
        new, stop = [], None
        for record, item in list(zip(chunk.records, rendered, strict=True))[n_there:]:
            if item.error is not None:
                what = f"{record.place}: {item.error}"
                if settings.strict:
                    stop = what
                    break
                summary.n_errors += 1
                if len(summary.errors) < MAX_ERRORS:
                    summary.errors.append(what)
            new.append(item.data)
        target.write(new)
        summary.n_records += len(new)
        n_words = sum(item.n_words for item in rendered)
        summary.n_words += n_words
        bar.update(chunk.records[-1].at, n_words)
        if stop:
            raise RecordError(stop)
    target.finish()
    summary.seconds = time.monotonic() - start
    return summary


def _rest(all_chunks: Iterable[Chunk], target: Output | StandardOutput, bar: Progress) -> Iterator[Chunk]:
    """The chunks with records that are not in the output. Raises ValueError where it has records of another input."""
    end = 0
    for chunk in all_chunks:
        end = chunk.end
        if chunk.first < target.n_done <= chunk.end:
            _compare(target, chunk.records[target.n_done - 1 - chunk.first])
        if chunk.end > target.n_done:
            yield chunk
        else:
            bar.skip(chunk.records[-1].at)
    if end < target.n_done:
        raise ValueError(
            f"--resume: the output has {target.n_done} records, the input {end}: it is the output of another input. "
            "--force starts again"
        )


def _compare(target: Output | StandardOutput, record: Record) -> None:
    """The last record that is there must be that of the input, as far as it says so."""
    if target.last is None or not target.form.is_journal or not isinstance(record.content, str):
        return
    there = json.loads(target.last)
    if "error" not in there and there.get("text") != record.content:
        raise ValueError(
            f"--resume: the output's record {target.n_done} does not have the text of {record.place}: "
            "it is the output of another input. --force starts again"
        )


def _total(inputs: Sequence[Input]) -> int | None:
    return sum(item.size() for item in inputs) if all(item.is_file for item in inputs) else None


def _state(
    pipeline: Pipeline | Language,
    device: str,
    inputs: Sequence[Input],
    form: Format,
    settings: RunSettings,
    reading: ReadSettings,
) -> dict[str, Any]:
    """What must be the same for a run to be gone on with. Number and kind of workers need not."""
    if isinstance(pipeline, Language):
        identity = "{lang}_{name} {version}".format(**pipeline.meta)
    else:
        identity = f"{pipeline.name} {pipeline.identity()}"
    return {
        "pipeline": identity,
        "device": device,
        "inputs": [[item.name, item.kind, item.size()] for item in inputs],
        "format": form.name,
        "batch_size": settings.batch_size,
        "text_key": reading.text_key,
        "encoding": reading.encoding,
    }
