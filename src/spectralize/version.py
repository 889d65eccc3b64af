"""The version that the ledger records: that of the shipped zip where there is one, else of the installation."""

#: Kept equal to pyproject.toml by a test. Rejects are final for one core version: raising it plans them once more.
CORE_VERSION = "0.6.0"
