"""Work on the shards of a dataset, on several processes or machines.

shards.py      a dataset, or a set of archives, cut into fixed shards
addresses.py   braces in paths and addresses, and what is known of the files behind them
contract.py    Work, ShardResult, and one try at a shard in a worker
run.py         every shard exactly once: tries, quarantine, progress
embed.py       the work of headstart embed: from the images of a shard to a file of rows
processes.py   workers as processes of this machine
ray.py         workers on Ray (extra ``ray``)
"""
