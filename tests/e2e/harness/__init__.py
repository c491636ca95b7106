"""What the end-to-end and crash tests stand on: TAP, servers, links, and sendq itself.

Everything runs on loopback, below one temporary folder a test program, and is
ended by process id. Nothing here sleeps for a result: `until` asks again until
it is there or the time is up.
"""
