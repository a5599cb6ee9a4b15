"""The main job on a real model: export, inspect, verify, and serve in a process without the model's library."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}


def run(*command: str) -> None:
    print(f"\n$ {' '.join(Path(part).name if os.path.isabs(part) else part for part in command)}", flush=True)
    subprocess.run(command, check=True, cwd=ROOT, env=ENVIRONMENT)


def write_reference(path: Path) -> None:
    """What the original model, in its own library, says of the sentences."""
    import torch
    from safetensors.torch import save_file

    from demo.encoder import SENTENCES, embed, load_original, tokenize

    inputs = tokenize(SENTENCES)
    with torch.inference_mode():
        hidden = load_original()(**inputs).last_hidden_state
    save_file({**inputs, "embeddings": embed(hidden, inputs["attention_mask"])}, path)


def main() -> None:
    os.environ.update(ENVIRONMENT)
    sys.path.insert(0, str(ROOT))
    command = str(Path(sys.executable).with_name("archive"))
    with tempfile.TemporaryDirectory() as folder:
        archive, reference = str(Path(folder) / "minilm.program.safetensors"), Path(folder) / "reference.safetensors"
        run(command, "export", "demo.encoder:build", "-o", archive, "--record-outputs")
        run(command, "inspect", archive)
        run(command, "verify", archive)
        write_reference(reference)
        run(sys.executable, "demo/serve.py", archive, str(reference))
    print("\nThe demo has passed.")


if __name__ == "__main__":
    main()
