"""The page of a certificate: one self-contained HTML file without scripts."""

import importlib.resources
from collections.abc import Mapping, Sequence

import jinja2

from atelier.certificates import controls
from atelier.certificates.certificate import Certificate, Standing
from atelier.criteria.tree import Branch, Tree

_WORDS = {"passes": "passes", "fails": "fails", "open": "too seldom seen to tell"}


def render(certificate: Certificate, tree: Tree) -> str:
    """Return the page as HTML; nothing is loaded from elsewhere, everything is escaped."""
    source = importlib.resources.files("atelier.reports") / "certificate_page.html.j2"
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.0f}%".replace("-", "−")
    environment.filters["number"] = lambda value: f"{value:.2f}".replace("-", "−")
    leaves = tree.leaves()
    return environment.from_string(source.read_text(encoding="utf-8")).render(
        certificate=certificate,
        finding=finding(certificate),
        rows=_rows(certificate, tree),
        names={path: f"{leaf.positive} / {leaf.negative}" for path, leaf in leaves.items()},
        settled=any("settled" in one.compared for one in certificate.standings.values()),
        compared=_compared(certificate),
        words=_WORDS,
        kept=controls.KEPT,
        apart=controls.APART,
        looks=controls.LOOKS,
    )


def finding(certificate: Certificate) -> str:
    """Return the page's first sentences: whom it agrees with, and which criteria fail."""
    verdicts = [one.verdict for one in certificate.standings.values()]
    said = f"{certificate.annotator}, examined on {certificate.pictures} {certificate.of}: "
    if not certificate.asked:
        said += "its answers came from a file, so no control could be done. "
    else:
        said += (
            f"of {len(verdicts)} criteria {verdicts.count('passes')} pass every control, "
            f"{verdicts.count('fails') or 'none'} fail{'s' * (verdicts.count('fails') < 2)} "
            f"one, and {verdicts.count('open') or 'none'} had too few verdicts to tell. "
        )
    for name, (alike, count) in _agreement(certificate).items():
        said += (
            f"Where both speak, it says what {name} says in {alike:,} of {count:,} answers. "
        )
    return said.strip()


def _agreement(certificate: Certificate) -> dict[str, tuple[int, int]]:
    """How many answers are alike, and how many there are, by reference."""
    found = {}
    for name in certificate.references:
        known = [
            one.against[name].agree
            for one in certificate.standings.values()
            if one.against[name].agree is not None
        ]
        count = sum(one.count for one in known if one is not None)
        if count:
            alike = sum(one.estimate * one.count for one in known if one is not None)
            found[name] = (round(alike), count)
    return found


def _rows(
    certificate: Certificate, tree: Tree
) -> Sequence[tuple[str, Standing, Mapping[str, Standing]]]:
    """Each root's title and standing, with those of its criteria."""
    found = []
    for root, whole in certificate.roots.items():
        node = tree.criteria[root]
        title = node.name if isinstance(node, Branch) else root
        below = {
            path: one
            for path, one in certificate.standings.items()
            if path == root or path.startswith(f"{root}/")
        }
        found.append((title, whole, below))
    return found


def _compared(certificate: Certificate) -> list[str]:
    """The references by which a comparison is right or wrong, in their order."""
    told = {name for one in certificate.standings.values() for name in one.compared}
    return [name for name in certificate.references if name in told]
