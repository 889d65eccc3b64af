-- The index by partition time no longer begins with the bucket: while a bucket is adopted and statistics are old, the planner
-- took it for as good a way to one key as the unique index, and read the whole bucket for each.
DROP INDEX spectralize.objects_partition_at_idx;
CREATE INDEX objects_partition_at_idx ON spectralize.objects (partition_at);
