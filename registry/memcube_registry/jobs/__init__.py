"""Work that a change leaves to be done: noted in its transaction, done later, by one process at a time.

    queued → running → gone            a periodic job: → queued again
             running → queued          it failed, its process stopped, or it was asked for meanwhile
             running → dead            it failed too often; an operator retries or cancels it

A job is done at least once: a process that is killed leaves a lease, and whoever finds it expired does
the job again. Handlers therefore look at what is there before they act.
"""
