"""What a deploy needs, checked before anything is built: parameters, tools, credentials, the stack, and quotas.

Each check says by itself what is missing, so that all of it is told at once; they change nothing.
"""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pilotlight.deployment.aws_clients import (
    SIGN_IN,
    OpenClient,
    find_region,
    has_credentials,
    open_aws_client,
    translate_aws_errors,
)
from pilotlight.deployment.package import (
    ARCHITECTURES,
    BUILD_FOLDER,
    RUNTIME_PYTHON,
    TEMPLATE_FILE,
    find_sam,
    read_architecture,
)
from pilotlight.deployment.stack import ROLLED_BACK, UNMADE, CloudFormationStack, find_stack
from pilotlight.deployment.template_parameters import TemplateParameters
from pilotlight.doctor.finding import CheckFailedError, HealthCheck, NotCheckedError
from pilotlight.errors import NotFoundError, PilotlightError, UnavailableError

FEW_ENVIRONMENTS = 50  # of Lambda at once; new accounts may have 10
LOW_CODE_BYTES = 2e9  # of Lambda's store of code; a deploy adds 0.2 GB until the old version is removed
SPOT_GPU_QUOTA = "L-3819A6DF"  # of EC2: All G and VT Spot Instance Requests, in vCPUs
TOOL_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class DeployRequest:
    """What is to be deployed: the checkout, as which stack, with which parameters; `build` makes the package anew."""

    checkout: Path
    stack: str
    parameters: Mapping[str, str]
    build: bool = True


class DeployChecks:
    """The checks of one deploy. What they have found decides how it is done."""

    def __init__(self, request: DeployRequest, open_client: OpenClient = open_aws_client) -> None:
        self.request = request
        self._open_client = open_client

    def list_checks(self) -> tuple[HealthCheck, ...]:
        """List all checks, what needs no network first."""
        tools = (HealthCheck("build", self.check_build), HealthCheck("sam", self.check_sam))
        account = (HealthCheck("region", self.check_region), HealthCheck("AWS credentials", self.check_credentials),
                   HealthCheck("stack", self.check_stack), HealthCheck("Lambda's limits", self.check_lambda),
                   HealthCheck("access logs", self.check_access_logs))  # fmt: skip
        training = (HealthCheck("GPU machines", self.check_training),) if self._get("TrainingSubnets") else ()
        return (HealthCheck("parameters", self.check_parameters), *tools, *account, *training)

    # --- this machine -------------------------------------------------------------------------------------------------

    def check_parameters(self) -> str:
        """Check the given parameters by the template, and its rules with the values of the stack that is there."""
        specs = TemplateParameters.load(self.request.checkout / TEMPLATE_FILE)
        current = self.stack.parameters if self._is_reachable and self.stack is not None else {}
        if problems := specs.find_problems(self.request.parameters, current):
            raise CheckFailedError(" ".join(problems))
        given = ", ".join(f"{name}={value}" for name, value in self.request.parameters.items())
        rest = "the stack's" if current else "the template's"
        return f"{given}; the others are {rest}." if given else f"All are {rest}."

    def check_build(self) -> str:
        """Check what builds the package, or the package if none is to be built."""
        if not self.request.build:
            return self._check_package()
        if self.python is not None:
            return f"{RUNTIME_PYTHON} builds for {self.architecture}."
        if self._has_docker:
            return f"Without {RUNTIME_PYTHON}, Docker builds in SAM's image, which it fetches first."
        raise CheckFailedError(f"Neither {RUNTIME_PYTHON}, Lambda's, nor Docker is here to build with; install one.")

    def _check_package(self) -> str:
        template = self.request.checkout / BUILD_FOLDER / TEMPLATE_FILE
        if not template.exists():
            raise CheckFailedError(
                f"There is no package in {template.parent}; leave out --no-build, or `make package`."
            )
        if (built := read_architecture(template.read_text())) != self.architecture:
            raise CheckFailedError(
                f"The package is for {built}, the stack for {self.architecture}; leave out --no-build."
            )
        return f"The package in {template.parent} is taken as it is."

    def check_sam(self) -> str:
        """Check the SAM CLI."""
        if self.sam is None:
            raise CheckFailedError(
                "The SAM CLI is not here; `make .venv-sam/ready` installs it, or pip install aws-sam-cli."
            )
        return f"{self.sam}."

    @cached_property
    def sam(self) -> str | None:
        """The SAM CLI, if there is one."""
        return find_sam(self.request.checkout)

    @cached_property
    def python(self) -> str | None:
        """Lambda's python, if it runs here; pyenv has a name on the PATH for one that is not selected."""
        return RUNTIME_PYTHON if is_tool_working(RUNTIME_PYTHON, "--version") else None

    @cached_property
    def _has_docker(self) -> bool:
        return is_tool_working("docker", "version", "--format", "{{.Server.Version}}")

    @cached_property
    def architecture(self) -> str:
        """The processors for which the package must be."""
        return self._get("Architecture") or ARCHITECTURES[0]

    def _get(self, name: str) -> str:
        """Get a parameter's value: the given one, else the stack's; empty where the template's default is taken."""
        if name in self.request.parameters:
            return self.request.parameters[name]
        return self.stack.parameters.get(name, "") if self._is_reachable and self.stack is not None else ""

    # --- the account --------------------------------------------------------------------------------------------------

    def check_region(self) -> str:
        """Check that a region is named."""
        if not self.region:
            raise CheckFailedError("No region is named; give --region, such as eu-central-1, or set AWS_REGION.")
        return f"{self.region}."

    @cached_property
    def region(self) -> str | None:
        """The region of the deploy, if one is named."""
        return find_region()

    def check_credentials(self) -> str:
        """Check that AWS takes the credentials, and tell whose they are."""
        identity = self._identity
        if isinstance(identity, NotCheckedError):
            raise identity
        if isinstance(identity, PilotlightError):
            raise CheckFailedError(str(identity))
        return f"{identity['Arn']}, account {identity['Account']}."

    @cached_property
    def _identity(self) -> dict[str, str] | PilotlightError:
        """What STS says of the credentials, or why it says nothing; asked once."""
        try:
            if not has_credentials():
                return CheckFailedError(f"There are none here; {SIGN_IN}.")
            if not self.region:
                return NotCheckedError("There are some, and a region is needed to ask whose they are.")
            with translate_aws_errors("these credentials"):
                found: dict[str, str] = self._open_client("sts").get_caller_identity()
        except PilotlightError as exc:
            return exc
        return found

    @property
    def _is_reachable(self) -> bool:
        return not isinstance(self._identity, PilotlightError)

    def _open_service(self, service: str) -> Any:  # noqa: ANN401 - boto3 ships no types
        if not self._is_reachable:
            raise NotCheckedError("It takes a region and credentials to ask.")
        return self._open_client(service)

    def check_stack(self) -> str:
        """Check that the stack can be made or updated now, and that one of its name is Pilotlight's."""
        self._open_service("cloudformation")
        stack = self.stack
        if stack is None or stack.status == UNMADE:
            return f"{self.request.stack} will be created."
        if not stack.is_ours:
            raise CheckFailedError(
                f"A stack {stack.name} is there that is not Pilotlight's; take another --stack-name."
            )
        if stack.is_busy:
            raise CheckFailedError(
                f"{stack.name} is {stack.status}, changed by somebody else; deploy when that is over."
            )
        if stack.status in ROLLED_BACK:
            return (
                f"{stack.name} is {stack.status}, left by a deploy that failed; that is deleted, and it is made anew."
            )
        return f"{stack.name} is {stack.status}, and will be updated; parameters that are not given keep their values."

    @cached_property
    def stack(self) -> CloudFormationStack | None:
        """The stack as it is now; None if there is none."""
        return find_stack(self._open_client("cloudformation"), self.request.stack)

    def check_lambda(self) -> str:
        """Check how many environments Lambda starts at once in this account, and its room for code."""
        with excuse_refusal("Lambda's limits"):
            settings = self._open_service("lambda").get_account_settings()
        limit, usage = settings["AccountLimit"], settings.get("AccountUsage", {})
        free = limit.get("TotalCodeSize", 0) - usage.get("TotalCodeSize", 0)
        if "TotalCodeSize" in limit and free < LOW_CODE_BYTES:
            raise CheckFailedError(
                f"Lambda's store has room for {free / 1e9:.1f} GB of code; delete old versions first."
            )
        environments = int(limit["ConcurrentExecutions"])
        wanted = int(float(self._get("ProvisionedConcurrency") or 0))
        if wanted > environments:
            raise CheckFailedError(
                f"ProvisionedConcurrency={wanted}, and Lambda starts {environments} environments here."
            )
        hint = (
            "; ask for more in Service Quotas: Lambda, Concurrent executions" if environments < FEW_ENVIRONMENTS else ""
        )
        return f"{environments:,} environments at once{hint}."

    def check_access_logs(self) -> str:
        """Check whether API Gateway may write logs in this account and region."""
        self._open_service("apigateway")
        given = self.request.parameters.get("AccessLogs")
        if given in ("off", "create") or (given is None and not self._is_new):
            return f"AccessLogs={self._get('AccessLogs')}."
        if self._log_role:
            return "API Gateway has a role for logs here, and a line is kept of each request (AccessLogs=account)."
        if given is not None:
            raise CheckFailedError("AccessLogs=account, and API Gateway has no role for logs here; say create, or off.")
        return (
            "API Gateway has no role for logs in this account and region: no line is kept of a request "
            "(AccessLogs=off). --parameter AccessLogs=create makes one, which all APIs of the region then use."
        )

    @cached_property
    def _log_role(self) -> str:
        """The role by which API Gateway writes logs; empty if there is none."""
        with excuse_refusal("API Gateway's role for logs"):
            return str(self._open_service("apigateway").get_account().get("cloudwatchRoleArn") or "")

    @property
    def _is_new(self) -> bool:
        return self.stack is None or self.stack.status in ROLLED_BACK or not self.stack.parameters

    def check_training(self) -> str:
        """Check how many vCPUs of GPU machines EC2 lends to this account as Spot; new accounts have none."""
        with excuse_refusal("EC2's quotas"):
            asked = {"ServiceCode": "ec2", "QuotaCode": SPOT_GPU_QUOTA}
            value = self._open_service("service-quotas").get_service_quota(**asked)["Quota"]["Value"]
        if value < 1:
            raise NotCheckedError(
                "EC2 lends this account no GPU machine as Spot, so that trainings would wait; ask for 8 vCPUs in "
                "Service Quotas: EC2, All G and VT Spot Instance Requests."
            )
        return f"{value:.0f} vCPUs of G machines as Spot."

    def choose_parameters(self) -> dict[str, str]:
        """Choose the parameters to send: the given ones, and for a new stack what this account needs."""
        chosen = dict(self.request.parameters)
        if self._is_new and "AccessLogs" not in chosen and not self._has_log_role():
            chosen["AccessLogs"] = "off"
        return chosen

    def _has_log_role(self) -> bool:
        """Return whether there is a role for logs; also if that cannot be asked, as the template has it."""
        try:
            return bool(self._log_role)
        except NotCheckedError:
            return True


@contextmanager
def excuse_refusal(what: str) -> Iterator[None]:
    """Turn AWS's refusal to be asked into a check that was not made: a deploy may work without that right."""
    try:
        with translate_aws_errors(what):
            yield
    except (UnavailableError, NotFoundError) as exc:
        raise NotCheckedError(str(exc)) from exc


def is_tool_working(*command: str) -> bool:
    """Return whether a program is there and ends well."""
    if shutil.which(command[0]) is None:
        return False
    try:
        return subprocess.run(command, capture_output=True, timeout=TOOL_TIMEOUT_S, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
