"""Tables of images: one row an image, with its ranks, its observation, its address. Parquet, CSV and TSV.

Everything here works on blocks of rows and keeps integers of them, because a table may have 160 million rows: no Python
string is made for a row. pyarrow is imported only where a table is read.
"""
