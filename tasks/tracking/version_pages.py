"""Pages of model versions: what MLflow shows of each, in few tags, metrics and a description.

Tags: ``objective``, ``headline``, ``verdict``, and ``experiment`` if a changed run made it. The
metric suite is the model's metrics, the model card its description. What only this code reads
is in tags that MLflow's pages do not show.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.run import paths
from tasks.tracking.measured import Measured, label, md5
from tasks.tracking.measured import suite as suite_entries

if TYPE_CHECKING:
    from mlflow import MlflowClient

OBJECTIVE, HEADLINE, VERDICT, EXPERIMENT = "objective", "headline", "verdict", "experiment"
# MLflow's pages show no tag that begins with its own name.
MD5, PATH = "mlflow.atelier.md5", "mlflow.atelier.path"  # of the weights, as DVC knows them
PARENT, CODE = "mlflow.atelier.parent", "mlflow.atelier.code"
CAPTIONS = "mlflow.atelier.captions"  # see Measured.captions
_SUITE, _CARD_MD5 = "mlflow.atelier.suite", "mlflow.atelier.card"
_CARD = "README.md"
_LONGEST = 5000  # characters of a description or tag that every store of MLflow takes
_FORMER = {
    "painter": OBJECTIVE, "dvc.md5": MD5, "dvc.path": PATH, "parent": PARENT, "code.md5": CODE,
    "evaluation.captions": CAPTIONS,
}  # fmt: skip
_SHOWN = {OBJECTIVE, HEADLINE, VERDICT, EXPERIMENT, "sampled_without_guidance"}
_KEPT = ("mlflow.", "survey.", "serving.", "champion.", "certificate")


def bring_up_to_date(mlflow: "MlflowClient", profile: str) -> None:
    """Rename the tags of versions that earlier code made, and remove those that runs have."""
    for version in mlflow.search_model_versions(f"name LIKE 'atelier-{profile}-%'"):
        if "dvc.md5" not in version.tags:
            continue
        at = (version.name, version.version)
        for former, now in _FORMER.items():
            if former in version.tags:
                mlflow.set_model_version_tag(*at, now, version.tags[former])
        for tag in version.tags.keys() - _SHOWN:
            if not tag.startswith(_KEPT):
                mlflow.delete_model_version_tag(*at, tag)


def attach(
    mlflow: "MlflowClient",
    registered: str,
    version: str,
    measured: Measured,
    suite: Mapping[str, float],
) -> None:
    """Put what was measured on a version, once: metrics, headline, verdict and card."""
    known = mlflow.get_model_version(registered, version)
    painter = known.tags[OBJECTIVE]
    model: str = known.source.removeprefix("models:/")  # the SQL store forgets its model_id
    card = _put_card(mlflow, model, known)
    tags = {
        HEADLINE: _headline(suite),
        VERDICT: _verdict(measured, painter),
        CAPTIONS: measured.captions,
        **_certificate(),
    }
    for name, value in tags.items():
        if known.tags.get(name) != value:
            mlflow.set_model_version_tag(registered, version, name, value)
    said = _description(f"{painter}: {tags[HEADLINE]}", card)
    if known.description != said:
        mlflow.update_model_version(registered, version, description=said)
    if known.tags.get(_SUITE) != measured.md5:
        for metric, number in suite.items():
            mlflow.log_metric(known.run_id, metric, number, model_id=model)
        mlflow.set_model_version_tag(registered, version, _SUITE, measured.md5)


def _certificate() -> dict[str, str]:
    """Tags: the certificate of the report's annotator, and the criteria that fail a control."""
    if not paths.CERTIFIED.is_file():
        return {}
    said = json.loads(paths.CERTIFIED.read_text(encoding="utf-8"))
    if said["version"] is None:
        return {"certificate": "none"}
    failing = ", ".join(sorted(said["failing"])) or "none"
    return {"certificate": said["version"], "certificate.failing": failing[:_LONGEST]}


def _headline(suite: Mapping[str, float]) -> str:
    text = f"#A_neg {suite['negatives']:.2f}"
    if "captions" in suite:
        ends = f"[{suite['negatives_low']:.2f}, {suite['negatives_high']:.2f}]"
        text += f" {ends} over {suite['captions']:.0f} captions"
    return text + (f", FID {suite['fid']:.2f}" if "fid" in suite else "")


def _verdict(measured: Measured, painter: str) -> str:
    """Return how a model stands to the base, as the rule of ``champion`` sees it."""
    mine, base = (measured.suites.get(name, {}) for name in (painter, "base"))
    if "negatives" not in base:
        return "not compared with the base"
    fewer = "fewer" if mine["negatives"] < base["negatives"] else "no fewer"
    said = label(measured.guard)
    kept = "no worse" if measured.passes(painter) else "worse or not measured"
    return f"{fewer} negatives than the base, {said} {kept}"


def _description(headline: str, card: str | None) -> str:
    """Return the card without its front matter, as far as MLflow takes it."""
    if card is None:
        return f"**{headline}**" + _absent()
    body = card.split("\n---\n", 1)[1] if card.startswith("---\n") else card
    text = f"**{headline}**{_absent()}\n\n{body.strip()}\n"
    if len(text) <= _LONGEST:
        return text
    rest = f"\n\n… The whole card is `{_CARD}` among the artifacts.\n"
    return text[: _LONGEST - len(rest)].rpartition("\n")[0] + rest


def _absent() -> str:
    """Say which metrics could not be measured."""
    absent = [name for name, entry in suite_entries().items() if not entry["available"]]
    return f" (not measured: {', '.join(absent)}: `atelier weights --fetch`)" if absent else ""


def _put_card(mlflow: "MlflowClient", model: str, known: Any) -> str | None:
    """Write the model card next to the weights, unless it is there; return its text.

    It has a tag of its own: a clone may have pulled the numbers first and the cards later.
    """
    file = paths.CARDS / known.tags[OBJECTIVE] / _CARD
    if not file.is_file():
        return _card_of(model) if _CARD_MD5 in known.tags else None
    content: bytes = file.read_bytes()
    if known.tags.get(_CARD_MD5) != md5(content):
        mlflow.log_model_artifacts(model, str(file.parent))
        mlflow.set_model_version_tag(known.name, known.version, _CARD_MD5, md5(content))
    return content.decode()


def _card_of(model: str) -> str:
    import mlflow

    place = mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{model}/{_CARD}")
    return Path(place).read_text(encoding="utf-8")
