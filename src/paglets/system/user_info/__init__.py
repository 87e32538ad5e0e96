"""Telling people what paglets have to say."""

from paglets.system.user_info.agent import (
    NOTIFY_USER,
    USER_INFO,
    UserInfoAgent,
    UserInfoReply,
    UserInfoRequest,
    UserInfoState,
)

__all__ = ["NOTIFY_USER", "USER_INFO", "UserInfoAgent", "UserInfoReply", "UserInfoRequest", "UserInfoState"]
