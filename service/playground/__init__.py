"""What the playground asks for besides lists: titles, sample histories, explanations."""
