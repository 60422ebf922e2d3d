"""The explorer's pages, one module each: functions of what was asked, and where they stand."""
