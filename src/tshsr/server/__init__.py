"""An index on the web: a REST interface for programs and one page for people, on this machine by default.

`limits` says how much is taken, `guard` stands before everything, `worker` lets one job at a time use the network,
`service` asks the index, `answers` is the form of what comes back, `server` ties a path to each question.
"""
