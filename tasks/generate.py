"""Stage ``generate``: base, θ1 and each θ paint the captions of the test part."""

from atelier import atomic
from atelier.config.profile import Profile
from tasks.evaluation import generation, jobs, precheck
from tasks.run import kept, paths, progress, resume
from tasks.tracking.mlflow_runs import StageRun


def run(profile: Profile, tracked: StageRun) -> None:
    """Paint what no former run has painted with the same weights, captions and settings.

    Reads the part that ``generate.part`` names and the weights of sft and cpo; writes
    ``paths.GENERATE/<candidate>/000.png`` and so on. Pictures of an interrupted run are kept.

    Raises:
        ArtifactError: An input is absent, or belongs to another base model.
        ParamsError: The annotator could not judge what is painted.
    """
    job = jobs.of(profile)
    precheck.run(profile, job.criteria)
    found = kept.take(paths.GENERATE, job.keys)
    names = [name for name in job.keys if name not in found]
    for name in (name for name in job.keys if name in found):
        progress.say(f"{name}: unchanged, kept")
    generation.paint_missing(job, names)
    for name in names:
        atomic.copy_tree(job.folder(name) / "pictures", paths.GENERATE / name)
        kept.seal(paths.GENERATE / name, job.keys[name])
    for name in job.keys:
        resume.done(job.folder(name))
    tracked.metrics({"pictures": len(names) * len(job.records)})
