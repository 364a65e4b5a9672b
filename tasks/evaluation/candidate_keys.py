"""Keys of the candidates' pictures: hashes of everything that decides how they look.

No torch is imported: ``python -m flows plan`` asks which candidates would paint.
"""

import json
from collections.abc import Sequence

from atelier.config.profile import Profile
from atelier.models.files import weight_files
from tasks import code
from tasks.evaluation import captions
from tasks.evaluation.candidates import Candidate
from tasks.run import paths, resume
from tasks.training import keys

_PAINTS = "tasks.evaluation.generation"


def of(profile: Profile, candidates: Sequence[Candidate]) -> dict[str, str]:
    """Return the key of each candidate's pictures, by the candidate's name.

    What candidates are called, and which others there are, does not matter.
    """
    shared = resume.key(
        json.dumps(profile.generate.model_dump(exclude={"part"}), sort_keys=True),
        profile.model,
        keys.base(profile),
        paths.JUDGED_BY,
        captions.part(profile),
        code.packages().hash_of(_PAINTS),
    )
    return {
        one.name: resume.key(
            shared,
            *(weight_files.file(folder) for folder in one.loras().values()),
            "with positives" if one.with_positives else "",
            "" if one.guided else "without guidance",
            "" if one.negative is None else f"beside {one.negative.w}",
        )
        for one in candidates
    }
