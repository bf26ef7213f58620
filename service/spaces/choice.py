"""Which space a request means.

A key or token that belongs to a space means that space. Otherwise the path decides (`/spaces/NAME/…`), then the header
`X-GPT4Rec-Space`, then it is the default space. Whoever presents no key of a closed space cannot tell it from one that
is not there.
"""

from __future__ import annotations

from service.access.key_owners import KeyOwners
from service.common.request_errors import BadRequest, Forbidden, UnknownSpace
from service.settings.space import DEFAULT

_UNKNOWN = "no space has this name, or the key or token of the request does not open it"


def chosen(owners: KeyOwners, by_path: str | None, by_header: str | None, presented: str | None) -> str:
    """Returns the name of the space that a request means.

    Args:
        owners: The access rules of the spaces.
        by_path: The name in the path, None if there is none.
        by_header: The name in the header, None if there is none.
        presented: The secret of the request, None if it has none.

    Raises:
        BadRequest: The path and the header name different spaces.
        Forbidden: The request names a space, and its key or token belongs to another one.
        UnknownSpace: There is no such space, or it is closed and the request presents nothing that opens it.
    """
    if by_path is not None and by_header is not None and by_path != by_header:
        raise BadRequest("the path and the header X-GPT4Rec-Space name different spaces; name one")
    named = by_header if by_path is None else by_path
    owner = owners.owner(presented)
    if owner is not None:
        if named is not None and named != owner:
            raise Forbidden("this key or token belongs to another space than the one that the request names")
        return owner
    if named is None:
        return DEFAULT
    access = owners.access(named)
    if access is None:
        raise UnknownSpace(_UNKNOWN)
    # The default space is known to everybody: it is the one that needs no name.
    if named != DEFAULT and access.api_keys and not access.acts_in_all(presented):
        raise UnknownSpace(_UNKNOWN)
    return named
