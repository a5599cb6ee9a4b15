"""The serving side of the demo: a process that has neither the model's code nor its library."""

import sys
import time

import torch
from safetensors.torch import load_file

import loader

sys.modules["transformers"] = None  # type: ignore[assignment]  # from here on, importing it fails


def main(archive: str, reference: str) -> None:
    try:
        import transformers  # noqa: F401
    except ImportError:
        print("transformers cannot be imported in this process")
    given = load_file(reference)
    start = time.perf_counter()
    model = loader.load_module(archive)
    print(f"loaded in {(time.perf_counter() - start) * 1000:.0f} ms")
    with torch.inference_mode():
        output = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"])
        print(f"returned a {type(output).__name__} ({type(output).__mro__[1].__name__}): {', '.join(output.keys())}")
        weights = given["attention_mask"].unsqueeze(-1).to(output.last_hidden_state.dtype)
        mean = (output.last_hidden_state * weights).sum(1) / weights.sum(1)
        embeddings = torch.nn.functional.normalize(mean, dim=-1)
    print("similarities of the sentences:")
    for row in (embeddings @ embeddings.T).tolist():
        print("   " + "  ".join(f"{value:5.2f}" for value in row))
    difference = (embeddings - given["embeddings"]).abs().max().item()
    print(f"largest difference from the original model: {difference:.1e}")
    if difference > 1e-6:
        sys.exit("the embeddings differ from those of the original")
    try:
        model(input_ids=given["input_ids"][:, :1], attention_mask=given["attention_mask"][:, :1])
    except ValueError as error:
        print(f"and a wrong input is refused: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
