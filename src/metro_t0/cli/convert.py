"""``metro-t0 convert``: a run or a checkpoint to a folder that others can load."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from metro_t0.sharing.model_card import CardSettings


class Target(StrEnum):
    """What to make."""

    HUB = "hub"
    PUBLISHED = "published"


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="Run directory, checkpoint (RUN/checkpoints/step-N), model folder or name on the Hub (ours or "
            "published), or an official pretraining checkpoint (.pt).",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make.")],
    to: Annotated[
        Target,
        typer.Option(
            help="hub: a folder that transformers runs without metro-t0. published: the format of the published "
            "METRO-T0 models."
        ),
    ] = Target.HUB,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The model's tokenizer, where SOURCE holds none.")
    ] = None,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Results of 'metro-t0 evaluate' for the model card; default: evaluation/ in the run. May be repeated.",
        ),
    ] = None,
    pretraining: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="The run that a finetuned model started from, for the model card."),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Licence of the weights, such as mit; left out unless given."),
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Language, such as en; may be repeated.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Hub name of the model that finetuning started from.")
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Hub name of a dataset, besides those that the run names; may be repeated."
        ),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Upload the folder to the Hub as this repository (owner/name)."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository a private one, where --push makes it.")
    ] = False,
) -> None:
    """Make a folder that others can load: for the Hub, or in the format of the published METRO-T0 models.

    A folder for the Hub carries the code that runs the model (trust_remote_code=True) and a model card. Where the
    source has an auxiliary model and a detection head, pretraining/ in it keeps them.

    \b
      metro-t0 convert runs/finetune --out my-model --license mit --evaluation results
      metro-t0 convert runs/finetune --out my-model --push me/my-model --private
      metro-t0 convert runs/finetune --to published --out as-published
      metro-t0 convert checkpoint_last.pt --tokenizer vocabulary --out their-model
    """
    from metro_t0.data.output import check_vacant

    check_vacant(out)
    if private and push is None:
        raise ValueError("--private is of the repository that --push makes: give --push owner/name too")
    if to is Target.PUBLISHED and any((evaluation, pretraining, license, language, base_model, dataset)):
        raise ValueError(
            "--to published makes no model card, so that there is no place for what goes into one"
        )
    if push is not None:
        from metro_t0.sharing.push import check_pushable

        check_pushable(push)
    from metro_t0.sharing.model_card import CardSettings

    settings = CardSettings(
        name=push or out.absolute().name,
        license=license,
        base_model=base_model,
        languages=tuple(language or ()),
        datasets=tuple(dataset or ()),
        pretraining=pretraining,
    )
    _make(source, tokenizer, out, to, settings, evaluation or [])
    if push is not None:
        from metro_t0.sharing.push import push_folder

        print(push_folder(out, push, private))
    print(out)


def _make(
    source: Path,
    tokenizer: Path | None,
    out: Path,
    to: Target,
    settings: CardSettings,
    evaluations: list[Path],
) -> None:
    """The folder; on a terminal, what is being done is shown meanwhile."""
    from rich.console import Console

    with Console(stderr=True).status(f"Reading {source}") as status:
        from metro_t0.sharing.source import read_source

        found = read_source(source, tokenizer)
        status.update(f"Writing {out}")
        if to is Target.PUBLISHED:
            from metro_t0.sharing.published_format import write_published

            write_published(found, out)
            return
        from metro_t0.sharing.export import export_model
        from metro_t0.sharing.model_card import data_card_of, model_card, public_card

        card = model_card(found, settings, evaluations)
        export_model(found, out, card, public_card(data_card_of(found)))
