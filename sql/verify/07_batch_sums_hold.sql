-- listed = unchanged + planned + unsettled + ignored + over_cap, and in a closed batch every planned pair has one outcome.
SELECT format('batch %s', b.batch_id) AS what,
       format('listed %s = unchanged %s + planned %s + unsettled %s + ignored %s + over_cap %s; '
              'planned_spectrograms %s = loaded %s + partial %s + rejected %s + failed %s',
              b.listed, b.unchanged, b.planned, b.unsettled, b.ignored, b.over_cap,
              b.planned_spectrograms, b.loaded, b.partial, b.rejected, b.failed) AS breach
FROM spectralize.batches AS b
WHERE (b.planned_at IS NOT NULL
       AND b.listed IS DISTINCT FROM b.unchanged + b.planned + b.unsettled + b.ignored + b.over_cap)
   OR (b.closed_at IS NOT NULL
       AND coalesce(b.planned_spectrograms, 0) IS DISTINCT FROM b.loaded + b.partial + b.rejected + b.failed)
