"""What a study is: its file, its inputs, its identity, its folder and its stores."""
