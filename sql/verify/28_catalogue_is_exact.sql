-- The catalogue, from which the explorer reads its table of recordings, holds what the views of what is current come to.
SELECT format('object %s, s3://%s/%s', object_id, bucket, key) AS what,
       CASE WHEN held.object_id IS NULL THEN format('it is %s, and the catalogue does not have it', now.outcome)
            WHEN now.object_id IS NULL THEN format('the catalogue has it as %s, and it is not to be seen', held.outcome)
            ELSE format('the catalogue has it as %s, it is %s%s', held.outcome, now.outcome,
                        CASE WHEN held.outcome = now.outcome THEN ', and other columns differ' END) END AS breach
FROM spectralize.catalogue AS held FULL JOIN spectralize.catalogue_now AS now USING (object_id, bucket, key)
WHERE held IS DISTINCT FROM now
