//! Resolves the packages a bundle declares with pip and npm, running none of their code.
