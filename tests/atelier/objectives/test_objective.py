import subprocess
import sys
import typing

import pytest

from atelier.config.objectives import Objective

KINDS = typing.get_args(typing.get_args(Objective)[0])


def test_reading_settings_imports_no_torch():
    heavy = "{'torch', 'diffusers', 'peft', 'transformers'}"
    code = f"import sys, atelier.config.profile; print({heavy} & {{*sys.modules}})"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert found.stdout.strip() == "set()"


@pytest.mark.parametrize("kind", KINDS)
def test_an_objective_lives_in_the_file_of_its_name(kind):
    (name,) = typing.get_args(kind.model_fields["objective"].annotation)

    assert kind.__module__ == f"atelier.objectives.{name.replace('-', '_')}"
