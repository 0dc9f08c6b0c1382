"""The proof that a ranker ranks as the trained model did: the manifest's reference cases, replayed."""

import numpy as np

from app.artifacts.manifest import Manifest
from app.errors import ArtifactError
from app.ranking.ranker import ItemSequence, Ranker


def replay_reference_cases(manifest: Manifest, ranker: Ranker) -> None:
    """Rank every reference case alone and all of them as one batch.

    An item may differ from the expected one only where the two scores lie within `score_tolerance`: a tie that
    rounding decides.

    Raises:
        ArtifactError: the first case that ranks otherwise.
    """
    cases = manifest.reference_cases
    sequences = [ItemSequence(case.items, case.timestamps_ms, case.event_types, case.target_type) for case in cases]
    longest = max(len(case.item_indices) for case in cases)
    try:
        alone = [
            ranker.rank([sequence], len(case.item_indices))[0] for case, sequence in zip(cases, sequences, strict=True)
        ]
        together = ranker.rank(sequences, longest)
    except Exception as error:  # onnxruntime raises plain exceptions of several kinds when a graph cannot run
        raise ArtifactError(f"{manifest.model_version}: the graph does not run on a reference case: {error}") from error
    for way, rankings in (("alone", alone), ("in a batch", together)):
        for number, (case, ranking) in enumerate(zip(cases, rankings, strict=True)):
            expected = np.array(case.scores, dtype=np.float32)
            size = len(expected)
            found = ranking.scores[:size]
            same_scores = len(found) == size and bool(np.all(np.abs(found - expected) <= manifest.score_tolerance))
            known = dict(zip(case.item_indices, case.scores, strict=True))
            last = case.scores[-1]
            same_items = same_scores and all(
                abs(known.get(int(index), last) - float(score)) <= manifest.score_tolerance
                for index, score in zip(ranking.item_indices[:size], found, strict=True)
            )
            if not same_items:
                raise ArtifactError(
                    f"{manifest.model_version}: reference case {number} ranked {way} gives items "
                    f"{ranking.item_indices[:5].tolist()} with scores {found[:5].tolist()}, "
                    f"expected {list(case.item_indices[:5])} with {expected[:5].tolist()} "
                    f"± {manifest.score_tolerance}"
                )
