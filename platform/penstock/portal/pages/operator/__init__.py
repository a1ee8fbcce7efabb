"""What the person who runs the installation sees and changes: every page asks for an operator."""
