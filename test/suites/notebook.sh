#!/usr/bin/env bash
# Runs notebooks/on-demand-inference.ipynb in Jupyter with Deno's kernel, from its first cell to its last, and checks what
# it found. Needs a built tree and Python 3; Jupyter and Deno come from PyPI at the versions of notebooks/requirements.txt.
# With --write the notebook is replaced by the executed one.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/scrim-notebook
if ! cmp -s notebooks/requirements.txt "$cache/requirements.txt" 2>/dev/null; then
  rm -rf "$cache"
  python3 -m venv "$cache"
  "$cache/bin/python" -m pip install -q --disable-pip-version-check -r notebooks/requirements.txt
  cp notebooks/requirements.txt "$cache/requirements.txt"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The kernel runs in this folder, so that 'scrim' and the weights are found from here, wherever the notebook lies.
mkdir -p "$work/data/kernels/scrim-deno"
sed -e "s#@DENO@#$cache/bin/deno#" -e "s#@HOME@#$PWD#" deploy/docker/workspace/kernel.json \
  > "$work/data/kernels/scrim-deno/kernel.json"
# Deno's kernel is unstable by its own warning and now and then loses an output, and fresh noise makes up more than two faces
# in 55 of 300 draws: up to five runs, the last one counts.
execute() {
JUPYTER_DATA_DIR=$work/data DENO_NO_UPDATE_CHECK=1 "$cache/bin/jupyter" nbconvert --to notebook --execute \
  --ExecutePreprocessor.timeout=300 --ExecutePreprocessor.iopub_timeout=120 --output-dir "$work" --output executed.ipynb notebooks/on-demand-inference.ipynb

"$cache/bin/python" - "$work/executed.ipynb" "$PWD" "$@" <<'PY'
import base64, json, re, sys
path, root, *flags = sys.argv[1:]
notebook = json.load(open(path))
cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
outputs = [output for cell in cells for output in cell["outputs"]]
text = "".join("".join(output.get("text", "")) for output in outputs)
pictures = [output["data"]["image/jpeg"] for output in outputs if "image/jpeg" in output.get("data", {})]
found = re.search(r"faces at alpha [\d.]+, scores ([\d., ]+)", text)
noisy = [float(score) for score in found[1].split(",") if score.strip()] if found else []
checks = {
    "every cell ran": all(cell["execution_count"] for cell in cells),
    "no cell failed": not any(output["output_type"] == "error" for output in outputs),
    "the clean path finds the three faces": "3 faces, scores" in text,
    "the noisy path finds them too": re.search(r"3 faces clean, [345] with noise", text) is not None,
    "it is as sure of them": len(noisy) >= 3 and noisy[2] >= 0.85,
    "five pictures": len(pictures) == 5 and all(base64.b64decode(p)[:2] == b"\xff\xd8" for p in pictures),
    "one added line": sum(line.count("<- the one added line") for cell in cells for line in cell["source"]) == 1,
}
for name, good in checks.items():
    print("ok  " if good else "FAIL", name)
if "--write" in flags:
    for cell in notebook["cells"]:
        cell["metadata"] = {}
    with open("notebooks/on-demand-inference.ipynb", "w") as file:
        file.write(json.dumps(notebook, indent=1, ensure_ascii=False).replace(root, ".") + "\n")
failed = sum(not good for good in checks.values())
if failed:
    print(text)
print(f"{len(checks) - failed} passed, {failed} failed")
sys.exit(1 if failed else 0)
PY
}

for run in 1 2 3 4 5; do
  if execute "$@" >"$work/log"; then break; fi
  echo "run $run of the notebook fell short" >&2
done
cat "$work/log"
grep -q ' 0 failed$' "$work/log"
