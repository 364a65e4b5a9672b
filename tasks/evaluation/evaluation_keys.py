"""Keys of ``evaluate``'s results: hashes of pictures, judges, networks, and their code.

The code of a part is that of what makes it: a new metric measures nothing else again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atelier.config.profile import Profile
from atelier.criteria.annotations import Record
from atelier.metrics import suite
from atelier.metrics.about import Entry
from atelier.metrics.fid import Extractor
from tasks.code import Packages
from tasks.evaluation import pictures
from tasks.run import paths, resume


@dataclass(frozen=True)
class Keys:
    """Writes the keys of parts, by the parts' names.

    Attributes:
        profile: In force.
        packages: Our code.
        candidates: Whose pictures are judged and measured.
    """

    profile: Profile
    packages: Packages
    candidates: Sequence[str]

    def of_judgements(self) -> dict[str, str]:
        """Return the keys of what both judges say of each candidate's pictures."""
        params = self.profile.annotate
        judges = resume.key(
            params.annotator,
            "" if params.vlm is None else params.vlm,
            paths.JUDGED_BY,
            "" if self.profile.evaluate.second_judge is None else paths.FEATURE_NETWORK,
            self.packages.hash_of("tasks.evaluation.judging"),
        )
        return self._of_candidates("judgements", judges)

    def of_features(
        self, extractor: Extractor, paintings: Mapping[str, Sequence[Record]]
    ) -> dict[str, str]:
        """Return the keys of features, of candidates' pictures and of paintings."""
        network = resume.key(
            extractor.identity,
            self.packages.hash_of("atelier.metrics.fid", "atelier.starter.feature_network"),
        )
        return self._of_candidates("features", network) | {
            part: resume.key(
                network,
                self._reading(),
                str(self.profile.model.pixels),
                *(record.image for record in records),
            )
            for part, records in paintings.items()
        }

    def of_scores(self, entry: Entry, prompts: Sequence[str]) -> dict[str, str]:
        """Return the keys of the scores of a metric that scores one picture at a time."""
        about = entry.about
        network = resume.key(
            about.version,
            entry.dtype,
            json.dumps(dict(entry.files), sort_keys=True),
            json.dumps(list(prompts)) if about.reads_prompt else "",
            self.packages.hash_of(suite.module(about.name)),
        )
        return self._of_candidates(f"scores/{about.name}", network)

    def _of_candidates(self, what: str, made_by: str) -> dict[str, str]:
        reading = self._reading()
        return {
            f"{what}/{name}": resume.key(made_by, reading, *pictures.files(name))
            for name in self.candidates
        }

    def _reading(self) -> str:
        return self.packages.hash_of("tasks.evaluation.pictures")
