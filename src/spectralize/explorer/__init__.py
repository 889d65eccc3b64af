"""The explorer: a web page to find recordings, look at them, listen to them, and see what every batch did.

Parts, and what each may know: `layout` (facts in, components out) and `figures` (arrays in, Plotly figures out) are pure;
`callbacks` read the store and put the two together; `media` serves what is not a page (audio, downloads, thumbnails);
`security` decides who may ask for anything at all. Nothing here writes to the store.
"""
