"""A Slurm of one's own on this machine: munge, slurmctld, and a slurmd for each of several nodes.

    python tests/slurm_cluster.py FOLDER [NODES]

starts one and says what to put into the environment; Ctrl-C ends it. It takes root, and what Debian
calls munge, slurmctld, slurmd and slurm-client; nothing outside the folder is written.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "srun", "scontrol", "scancel", "squeue")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
KillWait=2
MessageTimeout=10
TCPTimeout=2
"""


class Slurm:
    """The cluster. Nodes are called n1, n2 and so on."""

    def __init__(self, folder: Path, nodes: int = 2, cpus: int = 1) -> None:
        self.folder = folder
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.cpus = cpus
        self.daemons: dict[str, subprocess.Popen] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What programs need to find it."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        """Start all daemons and wait until every node is idle.

        :raises RuntimeError: in one line: what is missing, or what did not start
        """
        path = os.environ.get("PATH", "") + ":/usr/sbin"
        missing = [name for name in PROGRAMS if not shutil.which(name, path=path)]
        if missing:
            raise RuntimeError(
                f"there is no {', '.join(missing)}: "
                "apt-get install slurmctld slurmd slurm-client munge"
            )
        if os.geteuid():
            raise RuntimeError("slurmd has to be started by root")
        os.environ["PATH"] = path
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o755)
        first = _free_ports(len(self.nodes) + 1)
        text = CONFIGURATION.format(folder=self.folder, host=socket.gethostname(), port=first)
        for port, node in enumerate(self.nodes, first + 1):
            (self.folder / node).mkdir()
            text += (
                f"NodeName={node} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 "
                f"Port={port} CPUs={self.cpus} RealMemory=4000 State=UNKNOWN\n"
            )
        text += "PartitionName=all Nodes=ALL Default=YES DefMemPerCPU=1000 MaxTime=INFINITE\n"
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        subprocess.run(["mungekey", "--create", f"--keyfile={key}"], check=True)
        self._daemon(
            "munged", "--foreground", "--force", f"--key-file={key}",
            f"--socket={self.folder}/munge.socket", f"--pid-file={self.folder}/munged.pid",
            f"--log-file={self.folder}/munged.log", f"--seed-file={self.folder}/munged.seed",
        )  # fmt: skip
        _wait(lambda: (self.folder / "munge.socket").exists(), "munged has no socket")
        self._daemon("slurmctld", "-D")
        for node in self.nodes:
            self.start_node(node)
        self.wait_idle()

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node."""
        self._daemon("slurmd", "-D", "-N", node, name=node)

    def wait_idle(self) -> None:
        """Wait until every node takes jobs."""
        _wait(
            lambda: self.ask("sinfo", "-h", "-N", "-o", "%T").split() == ["idle"] * len(self.nodes),
            "the nodes do not come up",
        )

    def ask(self, *command: str) -> str:
        """What one of Slurm's programs says."""
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    def lose(self, node: str) -> None:
        """Have a node end as if its power had gone: its slurmd, and what that has started."""
        daemon = self.daemons.pop(node)
        daemon.kill()
        daemon.wait()
        for step in self._steps(node):
            os.kill(step, signal.SIGKILL)
        self.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def _steps(self, node: str) -> list[int]:
        """The slurmstepds of a node, by the log that they write to."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "comm").read_text().startswith("slurmstepd"):
                    files = [str(each.readlink()) for each in (process / "fd").iterdir()]
                    if str(self.folder / f"{node}.log") in files:
                        found.append(int(process.name))
        return found

    def stop(self) -> None:
        """End all daemons."""
        if "slurmctld" in self.daemons:
            self.ask("scancel", "--user=root")
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
        for daemon in self.daemons.values():
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()

    def _daemon(self, *command: str, name: str = "") -> None:
        name = name or command[0]
        with (self.folder / f"{name}.said").open("w") as said:
            self.daemons[name] = subprocess.Popen(
                command, env=os.environ | self.environment, stdout=said, stderr=said,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip


def _free_ports(count: int) -> int:
    """The first of some ports in a row that nobody has."""
    for first in range(17000, 60000, count):
        with suppress(OSError):
            for port in range(first, first + count):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", port))
            return first
    raise RuntimeError("no free ports")


def _wait(done, why: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            raise RuntimeError(why)
        time.sleep(0.2)


def main() -> None:
    """Start one and keep it until it is interrupted."""
    slurm = Slurm(Path(sys.argv[1]).absolute(), int((sys.argv[2:] or ["2"])[0]))
    try:
        slurm.start()
        print(*(f"{name}={value}" for name, value in slurm.environment.items()), flush=True)
        signal.pause()
    except RuntimeError as error:
        sys.exit(f"slurm_cluster: {error}")
    except KeyboardInterrupt:
        pass
    finally:
        slurm.stop()


if __name__ == "__main__":
    main()
