"""Many photographs on the processes of a Ray cluster: the processes, and a report in Parquet."""
