"""Generate pictures by a model of the registry; `make demo` registers some.

    python examples/registered_model.py
    python examples/registered_model.py models:/atelier-starter-theta@champion "a city in red"

The registry is the one of this clone, or the server that MLFLOW_TRACKING_URI names.
"""

import base64
import os
import sys
from pathlib import Path

import mlflow
import pandas

ROOT = Path(__file__).parents[1]
own = f"sqlite:///{ROOT / 'artifacts' / 'mlflow' / 'mlflow.db'}"
mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", own))

address = sys.argv[1] if len(sys.argv) > 1 else "models:/atelier-starter-theta@champion"
prompts = sys.argv[2:] or ["a landscape in blue", "a seascape in violet"]
model = mlflow.pyfunc.load_model(address)
found = model.predict(pandas.DataFrame({"prompt": prompts, "seed": range(len(prompts))}))
out = ROOT / "artifacts" / "examples"
out.mkdir(parents=True, exist_ok=True)
for number, picture in enumerate(found["image"]):
    file = out / f"registered-{number}.png"
    file.write_bytes(base64.b64decode(picture))
    print(f"{prompts[number]}: {file}")
