"""Options that several commands have."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Dialect(StrEnum):
    """What ``--ir`` may be."""

    TRAINING = "training"
    INFERENCE = "inference"


Archive = Annotated[Path, typer.Argument(metavar="FILE", help="The archive.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="NAME=VALUE",
        help="An argument of forward; give it once for each. A tensor: x=f32[2,3], x=i64[1,16]=zeros (or ones, rand), "
        "x=@FILE.safetensors:KEY. Others: n=3, flag=true, mode='\"fast\"', mask=none.",
        show_default=False,
    ),
]
Method = Annotated[str, typer.Option("--method", "-m", help="Which method.")]
AllowOps = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-ops",
        metavar="NAME",
        help="Operators that may be called: all of a namespace (torchvision), or one (torchvision::nms.default).",
    ),
]
AllowClasses = Annotated[
    list[str] | None,
    typer.Option("--allow-classes", metavar="MODULE", help="Modules or namespaces whose classes the program may have."),
]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="PACKAGE",
        help="Import a package first, for the operators and classes that it defines; "
        "the working directory is searched too.",
    ),
]
WeightsFile = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Take the weights from a safetensors file, or from the shards of a *.safetensors.index.json.",
        show_default=False,
    ),
]
Signature = Annotated[
    Path | None,
    typer.Option("--signature", metavar="FILE", help="The signature, if it is not FILE.sig.", show_default=False),
]
PrivateKey = Annotated[
    Path,
    typer.Option("--private-key", metavar="FILE", help="A key of an elliptic curve, in PEM.", show_default=False),
]
PublicKey = Annotated[
    Path | None,
    typer.Option("--public-key", metavar="FILE", help="First check the signature, with this key.", show_default=False),
]
