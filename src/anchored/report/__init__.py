"""From evaluated results to what people read: tables, figures and one page with everything."""
