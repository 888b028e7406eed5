"""The nine METRO-T0 models that the authors have published, with their T0 Eval scores.

    for model in published_models():
        model.hub_id, model.parameters, model.scores["RTE"]     # 'gonglinyuan/metro_t0_base', 225618432, 61.62

The scores are those of the model cards. Where a card's last rows were not at hand, the paper's row fills them in, if
all the others agree with it: the base checkpoints are other runs than the paper's, and stay as their cards say.
"""

from __future__ import annotations

from dataclasses import dataclass

from metro_t0.evaluation.published_scores import PublishedScores, published_scores

# Two figures of one evaluation differ by how they were rounded.
_ROUNDING = 0.011
_SIZES = {"base": "base", "basepp": "base++", "largepp": "large++"}
# Preset: parameters, rows of the embedding, layers of each stack, width.
_SHAPES = {
    "base": (225_618_432, 33_280, 12, 768),
    "base++": (249_604_608, 64_512, 12, 768),
    "large++": (773_644_288, 64_512, 24, 1024),
}


@dataclass(frozen=True)
class PublishedModel:
    """One checkpoint on the Hub.

    Attributes:
        hub_id: what ``from_pretrained`` takes.
        size: the preset of the same shape, such as ``base++``.
        parameters: of encoder and decoder, the shared embedding counted once.
        printed_parameters: as the paper prints them; of base++ it prints 256M.
        vocabulary: rows of the embedding, 512 sentinels included.
        layers: of the encoder, and of the decoder.
        width: of the hidden states.
        mixture: what it was finetuned on: ``T0``, ``T0+`` or ``T0++``.
        scores: accuracy in percent by task; None where no source was at hand.
        average: the mean of the scores, in percent; None where one is missing.
        from_paper: tasks whose score is the paper's.
        supervised: tasks that the paper marks as part of the mixture.
    """

    hub_id: str
    size: str
    parameters: int
    printed_parameters: str
    vocabulary: int
    layers: int
    width: int
    mixture: str
    scores: dict[str, float | None]
    average: float | None
    from_paper: tuple[str, ...]
    supervised: frozenset[str]


def published_models() -> list[PublishedModel]:
    """All nine, from the smallest to the largest, each size by mixture."""
    rows = published_scores()
    paper = {row.name: row for row in rows if row.source == "paper"}
    return [
        _model(row, paper[_name_in_paper(row.name)])
        for size in _SIZES
        for row in rows
        if row.source == "model cards" and row.name.endswith(f"_{size}")
    ]


def _model(card: PublishedScores, paper: PublishedScores) -> PublishedModel:
    size = _SIZES[card.name.rpartition("_")[2]]
    parameters, vocabulary, layers, width = _SHAPES[size]
    scores, average = dict(card.scores), card.average
    from_paper: tuple[str, ...] = ()
    if _agree(card, paper):
        from_paper = tuple(task for task, score in scores.items() if score is None)
        scores.update({task: paper.scores[task] for task in from_paper})
        average = paper.average if average is None else average
    assert card.mixture is not None
    return PublishedModel(
        hub_id=f"gonglinyuan/{card.name}",
        size=size,
        parameters=parameters,
        printed_parameters=card.parameters,
        vocabulary=vocabulary,
        layers=layers,
        width=width,
        mixture=card.mixture,
        scores=scores,
        average=average,
        from_paper=from_paper,
        supervised=card.supervised,
    )


def _name_in_paper(name: str) -> str:
    """``metro_t0pp_basepp`` is METRO-T0++ BASE++."""
    _, mixture, size = name.split("_")
    return f"METRO-{mixture.upper().replace('P', '+')} {_SIZES[size].upper()}"


def _agree(card: PublishedScores, paper: PublishedScores) -> bool:
    return all(
        score is None or other is None or abs(score - other) <= _ROUNDING
        for score, other in zip(card.scores.values(), paper.scores.values(), strict=True)
    )
