-- Where the events of a stream lie, by their number: 16 numbers in a block, each the `id` of its row in 6
-- bytes. What is not a whole block yet is in the stream's own row, which changes with each event in any
-- case. An index of (stream, seq) would touch a page of its own for each event instead.
CREATE TABLE block (
    stream INTEGER NOT NULL,
    number INTEGER NOT NULL, -- has the numbers from 16 * number + 1
    rows BLOB NOT NULL,
    PRIMARY KEY (stream, number)
) WITHOUT ROWID;
ALTER TABLE stream ADD COLUMN tail BLOB NOT NULL DEFAULT x'';

-- In front of the first that is still there are zeros.
INSERT INTO block (stream, number, rows)
SELECT stream, (seq - 1) / 16,
       unhex(hex(zeroblob(6 * ((min(seq) - 1) % 16))) || group_concat(printf('%012X', id), '' ORDER BY seq))
FROM event GROUP BY stream, (seq - 1) / 16;
UPDATE stream SET tail = coalesce(
    (SELECT rows FROM block WHERE stream = stream.id AND number = last / 16), zeroblob(6 * (last % 16))
);
DELETE FROM block WHERE length(rows) < 6 * 16;
DROP INDEX event_by_number;
