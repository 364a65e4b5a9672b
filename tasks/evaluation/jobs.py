"""The generation job of a profile: which candidate paints which captions."""

from atelier.config.profile import Profile
from atelier.criteria import tree
from tasks.evaluation import candidate_keys, candidates, captions
from tasks.evaluation.generation import GenerationJob
from tasks.run import paths


def of(profile: Profile) -> GenerationJob:
    """Return what is to be painted with a profile; nothing is written.

    Raises:
        ArtifactError: What a stage before ``generate`` makes is absent.
    """
    every = candidates.of(profile)
    return GenerationJob(
        every,
        candidate_keys.of(profile, every),
        captions.painted(captions.records(profile), profile.generate.prompts),
        tree.parse(paths.JUDGED_BY),
        profile,
    )
