"""What a chapter needs beside the losses: data, training, figures, claims."""
