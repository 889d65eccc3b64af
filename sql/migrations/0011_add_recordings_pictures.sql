-- Pictures inside a recording's file, noted and left out: kind, mime_type, size_bytes and description of each.
ALTER TABLE spectralize.recordings ADD COLUMN pictures jsonb NOT NULL DEFAULT '[]';
