"""From score files to the audit table, the figures and the page that a newcomer reads."""
