"""Build what `sam deploy` uploads: what SAM builds, for one architecture, with the bytecode of the functions' code.

`make package` runs this module, and so does `pilotlight deploy`. It needs the standard library alone. Without Lambda's
python on this machine, SAM builds in its own image, which Docker runs.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pilotlight.errors import InvalidInputError, PilotlightError, UnavailableError

ARCHITECTURES = ("x86_64", "arm64")
RUNTIME_PYTHON = "python3.13"  # Lambda's
BUILD_IMAGE = "public.ecr.aws/sam/build-python3.13:latest-{architecture}"  # SAM's, which it has run by then
BUILD_FOLDER = Path(".aws-sam", "build")
TEMPLATE_FILE = "template.yaml"
# The package for `sam local`: the SAM CLI 1.170 finds no function behind the address of a route that streams
# (aws/aws-sam-cli#9028), so these templates have the other address, and the function answers in one piece there.
LOCAL_TEMPLATE_FILE, LOCAL_API_FILE = "local.yaml", "local-api.yaml"
INCLUDED_API = "../../infra/api.yaml"  # by the built template
STREAMED_ADDRESS = ("2021-11-15/functions/", "/response-streaming-invocations")
WHOLE_ADDRESS = ("2015-03-31/functions/", "/invocations")
LAYERS = ("DepsLayer", "CoreLayer", "GenerationLayer")
MAX_LAYER_MB = 250  # of a function, by Lambda, with its own code
COMPILE = ("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash")
SHOWN_LINES = 15  # of what a program wrote before it failed

Tell = Callable[[str], None]


@dataclass(frozen=True)
class PackageBuilder:
    """Builds a checkout's package; `python` is Lambda's, or None to build in a container.

    With `quiet`, what the programs write is kept for the message of a failure.
    """

    checkout: Path
    sam: str
    python: str | None = RUNTIME_PYTHON
    architecture: str = ARCHITECTURES[0]
    quiet: bool = True
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def folder(self) -> Path:
        """The folder of the package."""
        return self.checkout / BUILD_FOLDER

    @property
    def template(self) -> Path:
        """The template that `sam deploy` takes."""
        return self.folder / TEMPLATE_FILE

    def build(self, tell: Tell) -> Path:
        """Build the package, telling each step, and return its template; raise `UnavailableError` for a failed step."""
        where = "in a container" if self.python is None else f"with {Path(self.python).name}"
        tell(f"Building for {self.architecture} {where}.")
        self._run(self._list_build_words())
        narrow_templates(self.folder, self.architecture)
        write_local_templates(self.folder, self.checkout / "infra" / "api.yaml")
        self._run(self._list_compile_words())
        tell(describe_size(self.folder))
        self._run([self.sam, "validate", "--lint"], AWS_DEFAULT_REGION="us-east-1")  # any: it only reads the template
        return self.template

    def _list_build_words(self) -> list[str]:
        words = [self.sam, "build", "--parameter-overrides", f"Architecture={self.architecture}"]
        if self.python is None:
            words += ["--use-container", "--container-env-var", f"PILOTLIGHT_ARCHITECTURE={self.architecture}"]
        return words

    def _list_compile_words(self) -> list[str]:
        """List the words that compile the functions' own code; the layers' Makefiles compile the layers.

        Lambda mounts /var/task read-only: without bytecode, each cold start would compile what it imports.
        """
        if self.python is not None:
            return [
                self.python,
                *COMPILE,
                str(BUILD_FOLDER),
            ]  # relative, so that no traceback has this machine's folders
        user, volume = f"{os.getuid()}:{os.getgid()}", f"{self.folder}:/package"
        image = BUILD_IMAGE.format(architecture=ARCHITECTURES[0])  # bytecode is the same for all machines
        return ["docker", "run", "--rm", "--user", user, "--volume", volume, "--entrypoint", RUNTIME_PYTHON, image,
                *COMPILE, "/package"]  # fmt: skip

    def _run(self, words: Sequence[str], **more: str) -> None:
        """Run a program in the checkout, with SAM's folder first on the PATH."""
        path = f"{Path(self.sam).parent}{os.pathsep}{self.environment.get('PATH', '')}"
        known = {"SAM_CLI_TELEMETRY": "0", "PILOTLIGHT_ARCHITECTURE": self.architecture, "PATH": path}
        if self.python is not None:
            known["RUNTIME_PYTHON"] = self.python  # for the layers' Makefiles
        environment = {**self.environment, **known, **more}
        kept, mixed = (subprocess.PIPE, subprocess.STDOUT) if self.quiet else (None, None)
        try:
            ran = subprocess.run(
                words, cwd=self.checkout, env=environment, stdout=kept, stderr=mixed, text=True, check=False
            )
        except OSError as exc:
            raise UnavailableError(f"{words[0]} cannot be run: {exc.strerror}.") from exc
        if ran.returncode:
            said = f":\n{shorten_output(ran.stdout)}" if ran.stdout else "."
            raise UnavailableError(f"`{Path(words[0]).name} {words[1]}` failed with {ran.returncode}{said}")


def shorten_output(text: str) -> str:
    """Return the last lines of what a program wrote, where it says why it failed."""
    return "\n".join(text.strip().splitlines()[-SHOWN_LINES:])


def narrow_templates(folder: Path, architecture: str) -> None:
    """Make the built templates take one architecture: what was built for one cannot be deployed to the other.

    Raises `UnavailableError` if the outermost template has no parameter Architecture.
    """
    for path in (folder / TEMPLATE_FILE, *sorted(folder.glob(f"*/{TEMPLATE_FILE}"))):
        text = path.read_text()
        if path.parent == folder and read_architecture(text) is None:
            raise UnavailableError(
                f"{path} has no parameter Architecture; `sam build` writes it otherwise than it did."
            )
        write_atomically(path, narrow_architecture(text, architecture))


def write_local_templates(folder: Path, api: Path) -> None:
    """Write the template for `sam local` beside that of a built package, with the document of the API that it includes.

    Raises `UnavailableError` if the built template does not include the document.
    """
    template = (folder / TEMPLATE_FILE).read_text()
    if INCLUDED_API not in template:
        raise UnavailableError(
            f"{folder / TEMPLATE_FILE} does not include {INCLUDED_API}; `sam build` writes it otherwise."
        )
    write_atomically(folder / LOCAL_TEMPLATE_FILE, template.replace(INCLUDED_API, LOCAL_API_FILE))
    text = api.read_text()
    for streamed, whole in zip(STREAMED_ADDRESS, WHOLE_ADDRESS, strict=True):
        text = text.replace(streamed, whole)
    write_atomically(folder / LOCAL_API_FILE, text.replace("responseTransferMode: STREAM, ", ""))


def narrow_architecture(template: str, architecture: str) -> str:
    """Make one architecture the default and only value of the parameter Architecture; leave all else as it is.

    The text is edited, not parsed, so that this module needs no YAML; `sam build` writes it always in this form.
    """
    lines = []
    for inside, line in mark_parameter(template.splitlines(keepends=True)):
        if inside and line.startswith("    Default: "):
            lines.append(f"    Default: {architecture}\n")
        elif not inside or line.strip() not in {f"- {each}" for each in ARCHITECTURES if each != architecture}:
            lines.append(line)
    return "".join(lines)


def read_architecture(template: str) -> str | None:
    """Read the default of the parameter Architecture of a built template; None if it has no such parameter."""
    for inside, line in mark_parameter(template.splitlines()):
        if inside and line.startswith("    Default: "):
            return line.removeprefix("    Default: ").strip()
    return None


def mark_parameter(lines: Iterable[str]) -> Iterable[tuple[bool, str]]:
    """Yield the lines of a template, each with whether it is one of the parameter Architecture."""
    inside = False
    for line in lines:
        if re.match(r" {0,2}\S", line):
            inside = line.rstrip() == "  Architecture:"
        yield inside, line


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by one of this text, so that no reader sees half of it."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)


def describe_size(folder: Path) -> str:
    """Describe what the layers take of what Lambda allows."""
    sizes = {layer: measure_folder(folder / layer) / 1e6 for layer in LAYERS}
    parts = ", ".join(f"{layer} {size:.0f} MB" for layer, size in sizes.items())
    return f"{parts}: {sum(sizes.values()):.0f} MB of the {MAX_LAYER_MB} that Lambda allows a function."


def measure_folder(folder: Path) -> int:
    """Measure the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def find_sam(checkout: Path) -> str | None:
    """Find the SAM CLI: the one that `make .venv-sam/ready` installs into the checkout, else the one on the PATH."""
    own = checkout / ".venv-sam" / "bin" / "sam"
    return str(own) if os.access(own, os.X_OK) else shutil.which("sam")


def main(words: Sequence[str] | None = None) -> int:
    """Build the package of the checkout in the working folder; return the exit code."""
    parser = argparse.ArgumentParser(prog="make package", description="Build what `sam deploy` uploads.")
    parser.add_argument("--architecture", default=ARCHITECTURES[0])
    parser.add_argument("--python", default=RUNTIME_PYTHON)
    given = parser.parse_args(words)
    try:
        if given.architecture not in ARCHITECTURES:
            raise InvalidInputError(f"ARCH is {given.architecture!r}; {' and '.join(ARCHITECTURES)} are built.")
        sam = find_sam(Path.cwd())
        if sam is None:
            raise UnavailableError("The SAM CLI is neither in .venv-sam nor on the PATH; `make .venv-sam/ready`.")
        builder = PackageBuilder(Path.cwd(), sam, given.python, given.architecture, quiet=False)
        builder.build(lambda line: print(line, flush=True))  # noqa: T201 - a program of its own, without the console
    except PilotlightError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2 if isinstance(exc, InvalidInputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
