"""Where batch statistics fail: weight norm and its rivals in small causal networks on speech.

Everything is a pure function of (settings, speech, cell), where a cell is one network trained
with one norm, batch size, seed and learning rate:

    settings.py     what is run: quick, default, full
    speech.py       recordings at 8 kHz and crops of them
    stack_cell.py   one convolutional network: training, and experiments E1 to E5 on it
    recurrent.py    one recurrent network: experiment E6
    run.py          all cells, on several processes, resumable
    summary.py      medians and ranges
    figures.py, report.py, report.html    what a person looks at
"""
