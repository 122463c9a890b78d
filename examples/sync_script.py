"""A script without async. Ctrl-C stops the reply, not the script."""

from gprochat_anyio import SyncClient, Timeouts

with SyncClient.from_env(timeouts=Timeouts(first_chunk=20, idle=10)) as client:
    with client.stream("Tell me a story") as chunks:
        try:
            for chunk in chunks:
                print(chunk, end="", flush=True)
                if len(chunks.text) > 40:
                    break  # leaving the block closes the connection
        except KeyboardInterrupt:
            print(" [stopped]", end="")
    print(f"\n{len(chunks.text)} characters, stopped: {len(chunks.text) > 40}")

    for outcome in client.gather(["Name a colour", "Name a river"]):  # both run concurrently
        print(outcome.error or outcome.reply)
