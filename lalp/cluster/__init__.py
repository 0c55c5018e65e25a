"""Work that is spread over many machines by Ray (the extra ``cluster``)."""
