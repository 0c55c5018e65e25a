// A browser reads no other page for a summary where the site is opened from a disk.
DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = location.protocol !== "file:";
