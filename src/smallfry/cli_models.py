"""The commands that use a finished model: run, serve, export, import, quantize."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from smallfry.cli_common import (
    InputColumn,
    Json,
    KindOption,
    MetricOption,
    OutputColumn,
    References,
    Seed,
    Where,
    console,
    errors,
    load_job,
    print_json,
    read_inputs,
)  # fmt: skip
from smallfry.errors import SmallfryError
from smallfry.shipped import model_directory

if TYPE_CHECKING:
    from smallfry.engine.decoding import Sampling
    from smallfry.writer import Writer

ModelArg = Annotated[Path, typer.Argument(help="A model directory, the directory of an assessment, or shipped:stories")]
Precision = Annotated[str | None, typer.Option(help="fp32, bf16, int8 or int4; as stored by default")]
EngineOption = Annotated[str, typer.Option(help="c, numpy, or auto: the best there is")]
MaxNew = Annotated[int, typer.Option(min=1, help="Tokens to write at most")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token, 1 draws by probability")]
TopK = Annotated[int, typer.Option(min=0, help="Draw among the k likeliest; 0: all")]
TopP = Annotated[float, typer.Option(min=0.0, max=1.0, help="Draw among the likeliest with this probability together")]
MinP = Annotated[float, typer.Option(min=0.0, max=1.0, help="Draw among those with this share of the likeliest's")]
Repetition = Annotated[float, typer.Option(min=1.0, help="Makes what was written less likely; 1: off")]
DrawSeed = Annotated[int, typer.Option(help="Of the draws")]


def run(
    model: ModelArg, text: Annotated[list[str] | None, typer.Argument(help="Inputs")] = None,
    input_file: Annotated[Path | None, typer.Option("--input", help="A .jsonl file with an input column")] = None,
    input_column: InputColumn = "input", precision: Precision = None, engine: EngineOption = "auto",
    max_new: MaxNew = 200, temperature: Temperature = 0.0, top_k: TopK = 0, top_p: TopP = 1.0, min_p: MinP = 0.0,
    repetition: Repetition = 1.0, seed: DrawSeed = 0, as_json: Json = False,
) -> None:  # fmt: skip
    """Answer inputs with a trained model, with its confidence; a model without a job continues texts."""
    inputs = list(text or [])
    if input_file is not None:
        inputs += read_inputs(input_file, input_column)
    if not inputs:
        raise SmallfryError('nothing to answer; give a text: smallfry run DIR "text", or --input FILE.jsonl')
    path = model_directory(model)
    if not has_form(path):
        sampling = sampling_of(temperature, top_k, top_p, min_p, repetition, seed)
        _continue(path, inputs, precision, engine, max_new, sampling, as_json)
        return
    from smallfry.predictor import ModelPredictor

    predictor = ModelPredictor.load(path, cast(Any, precision), cast(Any, engine))
    tell(predictor.notice)
    answers = predictor.predict(inputs)
    for answer in answers:
        console.print(f"{answer.output}  ", end="", markup=False, highlight=False, soft_wrap=True)
        console.print(f"({answer.sureness})", style="dim", highlight=False)
    if as_json:
        rows = [
            {"input": i, "output": a.output, "confidence": a.confidence, "whole": a.whole}
            for i, a in zip(inputs, answers, strict=True)
        ]
        print_json({"model": predictor.name, "answers": rows})


def _continue(
    path: Path, inputs: list[str], precision: str | None, engine: str, max_new: int, sampling: Sampling | None,
    as_json: bool,
) -> None:  # fmt: skip
    from smallfry.writer import Writer

    writer = Writer.load(path, cast(Any, precision), cast(Any, engine))
    tell(writer.notice)
    if writer.chats:
        tell(f"{writer.name} was trained to converse: smallfry chat talks with it, run goes on with what it is given")
    rows = []
    for given in inputs:
        console.print(given, end="", markup=False, highlight=False, soft_wrap=True)
        written = _stream(writer, writer.prompt_ids(given), max_new, sampling)
        rows.append({"input": given, "output": written})
    if as_json:
        print_json({"model": writer.name, "answers": rows})


def _stream(writer: Writer, prompt: list[int], max_new: int, sampling: Sampling | None) -> str:
    parts = []
    for piece in writer.stream(prompt, max_new, sampling):
        parts.append(piece.text)
        console.print(piece.text, end="", markup=False, highlight=False, soft_wrap=True)
    console.print()
    return "".join(parts)


def serve(
    models: Annotated[list[Path], typer.Argument(help="Model directories; the first answers where none is named")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen at; this machine alone by default")] = "127.0.0.1",
    precision: Precision = None, engine: EngineOption = "auto",
) -> None:  # fmt: skip
    """Answer over HTTP as OpenAI's completions and chat completions do."""
    from smallfry.predictor import ModelPredictor
    from smallfry.serving import Server
    from smallfry.writer import Writer

    loaded: list[Writer | ModelPredictor] = []
    for path in map(model_directory, models):
        kind = ModelPredictor if has_form(path) else Writer
        loaded.append(cast(Any, kind).load(path, precision, engine))
        tell(loaded[-1].notice)
    server = Server(loaded, host, port)
    console.print(f"{server.address}/v1  {', '.join(server.models)}  (Ctrl-C ends)", markup=False, highlight=False)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        console.print("ended")
    finally:
        server.server_close()


def export(
    model: ModelArg, to: Annotated[str, typer.Option(help="gguf, onnx, c or web")],
    out: Annotated[Path, typer.Option(help="File or folder to write")],
    dtype: Annotated[str | None, typer.Option(
        help="gguf: f32, f16 (default), q8_0; c and web: int8 (default), int4, bf16, fp32; onnx is fp32"
    )] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there")] = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Ship a model for llama.cpp (GGUF), for ONNX Runtime, for any C compiler, or as one page for browsers."""
    kinds = {
        "gguf": ("f16", "f32", "q8_0"), "onnx": ("fp32",), "web": ("int8", "fp32", "bf16", "int4"),
        "c": ("int8", "fp32", "bf16", "int4"),
    }  # fmt: skip
    if to not in kinds:
        raise SmallfryError(f"--to {to}: expected one of {', '.join(kinds)}")
    kind = dtype or kinds[to][0]
    if kind not in kinds[to]:
        raise SmallfryError(f"--dtype {kind}: for {to} expected one of {', '.join(kinds[to])}")
    if out.exists() and not force:
        raise SmallfryError(f"{out}: is there already; choose another --out, or add --force to replace it")
    path = model_directory(model)
    notes: list[str] = []
    if to == "gguf":
        from smallfry.export.gguf import export_gguf

        notes = export_gguf(path, out, cast(Any, kind))
    elif to == "onnx":
        from smallfry.export.onnx import export_onnx

        export_onnx(path, out)
    elif to == "c":
        from smallfry.export.c_folder import export_c

        export_c(path, out, cast(Any, kind), force)
    else:
        from smallfry.export.web import export_web

        export_web(path, out, cast(Any, kind))
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) if out.is_dir() else out.stat().st_size
    for note in notes:
        console.print(note, style="dim", markup=False, highlight=False)
    console.print(f"{out}  {size:,} bytes, {kind}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json({"to": to, "out": str(out), "dtype": kind, "bytes": size, "notes": notes})


def import_(
    source: Annotated[Path, typer.Argument(help="A Hugging Face directory, or a llama2.c checkpoint (.bin)")],
    out: Annotated[Path, typer.Option(help="Model directory to make")],
    tokenizer: Annotated[Path | None, typer.Option(help="For llama2.c: its tokenizer's .bin, if not beside it")] = None,
    name: Annotated[str, typer.Option(help="What the model is called")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace what is there")] = False,
    as_json: Json = False,
) -> None:
    """Make a model directory of a model that others trained: plain Qwen3, Qwen2, Llama, llama2.c."""
    from smallfry.importing import import_model

    facts = import_model(source, out, tokenizer, name, force)
    console.print(
        f"{out}  {facts['name']}: {facts['architecture']}, {facts['parameters']:,} parameters, "
        f"vocabulary {facts['vocab_size']:,}", markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    console.print(str(facts["use"]), style="dim", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json(facts)


def quantize(
    model: ModelArg, out: Annotated[Path, typer.Option(help="Model directory to make")],
    bits: Annotated[int, typer.Option(help="8 or 4, with a scale for every 32 weights")] = 8,
    calibrate: Annotated[str | None, typer.Option(
        help="A job or a text whose inputs show which weights matter; by default what the model itself writes"
    )] = None,
    measure: Annotated[str | None, typer.Option(help="A job to ask both models, with the paired difference")] = None,
    input_column: InputColumn = "input", output_column: OutputColumn = "output",
    references_column: References = None, kind: KindOption = None, metric: MetricOption = None, where: Where = None,
    seed: Seed = 0, force: Annotated[bool, typer.Option("--force", help="Replace what is there")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Round a model's weights to 8 or 4 bits, calibrated, and measure what that costs."""
    from smallfry.quantising import compare, quantise_model

    if bits not in (4, 8):
        raise SmallfryError(f"--bits {bits}: expected 8 or 4")
    path = model_directory(model)

    def job(source: str) -> Any:
        return load_job(source, input_column, output_column, references_column, kind, metric, where, seed)

    texts = None
    if calibrate is not None:
        is_text = Path(calibrate).suffix == ".txt"
        texts = [Path(calibrate).read_text(encoding="utf-8")] if is_text else [r.input for r in job(calibrate).train]
    facts = quantise_model(path, out, "int8" if bits == 8 else "int4", texts, force)
    console.print(
        f"{out}  {facts['bytes']:,} bytes of weights (were {facts['bytes_before']:,}), "
        f"error of outputs {facts['error']:.2%} (uncalibrated {facts['error_plain']:.2%})",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    if measure is not None:
        facts["measured"] = compare(job(measure), path, out)
        found = facts["measured"]
        console.print(
            f"{found['metric']} {found['before']:.4g} -> {found['after']:.4g}, difference {found['difference']:+.4g} "
            f"[{found['ci'][0]:+.4g}, {found['ci'][1]:+.4g}] on {found['n']:,} rows", markup=False, highlight=False,
        )  # fmt: skip
    if as_json:
        print_json(facts)


def has_form(path: Path) -> bool:
    """Whether a model was trained for a job.

    Raises:
        SmallfryError: Its card is broken.
    """
    from smallfry.files import read_json

    if not (path / "smallfry.json").exists():
        return False
    card = read_json(path / "smallfry.json")
    if not isinstance(card, dict):
        raise SmallfryError(f"{path / 'smallfry.json'}: not a card this smallfry reads (not an object)")
    return card.get("form") is not None


def sampling_of(
    temperature: float, top_k: int, top_p: float, min_p: float, repetition: float, seed: int
) -> Sampling | None:
    """How tokens are drawn by the options; None takes the likeliest.

    Raises:
        SmallfryError: The seed is below nought.
    """
    if seed < 0:
        raise SmallfryError(f"--seed {seed}: expected 0 or more")
    if temperature == 0.0 and repetition == 1.0:
        return None
    from smallfry.engine.decoding import Sampling

    if temperature == 0.0:  # the likeliest after the penalty
        return Sampling(1.0, top_k=1, repetition=repetition, seed=seed)
    return Sampling(temperature, top_p, seed, top_k=top_k, min_p=min_p, repetition=repetition)


def tell(notice: str) -> None:
    """Say beside the answers what the user should know."""
    if notice:
        errors.print(notice, style="yellow", markup=False, highlight=False)
