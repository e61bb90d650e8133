"""Processes of a stack: started, watched, started again, ended; and questions to a running one."""
