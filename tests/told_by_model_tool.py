"""What ``model_tool --info`` prints, as far as ``model_info.py --json`` says the same."""

from __future__ import annotations

import re


def of_cvimodel(said: str) -> dict:
    """Its fields; programs' tensors by name: type, shape, scale."""
    program = said.partition("Program #0")[2]
    row = r"^        \d{3}  \S+ +(\S+) +(\d+) +(\d+) +(\d+) +(\d+) +(\S+) +(\S+) +(\S+)$"
    rows = re.findall(row, program, re.M)
    tensors = {row[7]: (row[0], [int(dim) for dim in row[1:5]], row[5]) for row in rows}
    names = {
        kind: re.search(rf"^    {kind} +: (.*)$", program, re.M)[1].split(",")
        for kind in ("inputs", "outputs")
    }
    parts = re.findall(r"^\d{3}  (weight|cmdbuf) +(\S+) +(\d+) +(\d+) +([0-9a-f]{32})$", said, re.M)
    name, built = re.search(r"^(\S+) Build at (.*)$", said, re.M).groups()
    return {
        "name": name,
        "built": built,
        "chip": re.search(r"^For (\S+) chip ONLY$", said, re.M)[1],
        "format_version": re.search(r"^Cvimodel Version: (.*)$", said, re.M)[1],
        "tool_version": re.search(r"^Mlir Version: (.*)$", said, re.M)[1],
        "total": re.search(r"ION Memory Size: \((\S+) MB\)", said)[1],
        "private": re.search(r"private_gmem_size: (\d+)", said)[1],
        "shared": re.search(r"shared_gmem_size: (\d+)", said)[1],
        "parts": [(name, int(size), int(offset), md5) for _, name, size, offset, md5 in parts],
        **{kind: [(each, *tensors[each]) for each in names[kind]] for kind in names},
    }


# How it calls types in cvimodels.
_TYPES = {"float32": "fp32", "bfloat16": "bf16"}


def cvimodel_alike(told: dict) -> dict:
    """What `of_cvimodel` gives, from our document."""
    (program,) = told["programs"]
    same = ("name", "built", "chip", "format_version", "tool_version")
    return {key: told[key] for key in same} | {
        "total": f"{told['memory']['total'] / 2**20:.2f}",
        "private": str(told["memory"]["private"]),
        "shared": str(told["memory"]["shared"]),
        "parts": [(each["name"], each["size"], each["offset"], each["md5"])
                  for each in told["parts"]],
        **{kind: [(each["name"], _TYPES.get(each["dtype"], each["dtype"]), each["shape"],
                   f"{each['scale']:f}") for each in program[kind]]
           for kind in ("inputs", "outputs")},
    }  # fmt: skip


def of_bmodel(said: str) -> str:
    """The lines that are compared, without blanks at their ends."""
    kept = [line.rstrip() for line in said.splitlines() if not line.startswith("kernel_module")]
    return "\n".join(line for line in kept if line)


def bmodel_alike(told: dict, built: str) -> str:
    """The same from our document; ``built`` is the time as model_tool writes it."""
    memory = told["memory"]
    tensors = [
        f"{kind}: {each['name']}, {each['shape']}, {each['dtype']}, "
        f"scale: {each['scale']:g}, zero_point: {each['zero_point']}"
        for kind in ("input", "output")
        for each in told["programs"][0][f"{kind}s"]
    ]
    return "\n".join(
        [
            f"bmodel version: B.{told['format_version']}+{told['tool_version']}",
            f"chip: {told['chip'].upper()}",
            f"create time: {built}",
            "==========================================",
            f"net 0: [{told['name']}]  static",
            "------------",
            "stage 0:",
            *tensors,
            f"device mem size: {memory['total']} (coeff: {memory['weights']}, "
            f"instruct: {memory['commands']}, runtime: {memory['runtime']})",
            f"host mem size: {memory['host']} (coeff: 0, runtime: 0)",
        ]
    )
