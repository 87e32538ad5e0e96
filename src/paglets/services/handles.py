"""The means to call a provider of a contract."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from paglets.core.errors import ServiceContractError
from paglets.services.calls import ServiceCalls
from paglets.services.records import ServiceRecord

if TYPE_CHECKING:
    from paglets.services.calling import Caller, RoutedCaller
    from paglets.services.contracts import ServiceContract

__all__ = ["ServiceHandle"]


@dataclass(frozen=True, slots=True)
class ServiceHandle(ServiceCalls):
    """The means to call one provider of a contract.

    A handle that was looked up goes on working when its provider is lost: it finds the provider again, or another one
    of the same contract, and stays with that. One that was made from a record calls that provider and no other.

    :raises ServiceContractError: the record does not offer exactly this contract.
    """

    contract: ServiceContract
    record: ServiceRecord
    """The provider as it was found."""
    context_or_client: Any = None
    """Whose client the calls use: a paglet context, a host client or an asynchronous one; otherwise a fresh one."""
    route: RoutedCaller | None = field(default=None, compare=False, repr=False)
    """How another provider is found; None where there is to be no other. It calls what the other fields say."""

    def __post_init__(self) -> None:
        if not self.contract.matches_record(self.record):
            raise ServiceContractError(
                f"The provider of {self.record.name!r} at {self.record.host_url or self.record.proxy.host_url!r} "
                f"does not offer contract {self.contract.name!r} version {self.contract.version}"
            )
        if self.route is not None:
            # `dataclasses.replace` hands on the route of the handle before.
            fitting = self.route.fitting(self.contract, self.record, self.context_or_client)
            object.__setattr__(self, "route", fitting)

    @property
    def provider(self) -> ServiceRecord:
        """The provider that the next call goes to first."""
        return self.record if self.route is None else self.route.providers.current or self.record

    def _caller(self) -> Caller:
        if self.route is not None:
            return self.route
        from paglets.services.calling import DirectCaller

        return DirectCaller(self.record.proxy, self.context_or_client)
