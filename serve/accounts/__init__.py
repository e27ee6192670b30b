"""Accounts: who may draw, how much in a minute, for how many credits; and the ledger that nothing gets past."""

from serve.accounts.accounts import Accounts, Caller, Charge, NoAccounts, open_accounts

__all__ = ["Accounts", "Caller", "Charge", "NoAccounts", "open_accounts"]
